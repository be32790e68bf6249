//! Rust source as names and marks: enough of its grammar to find items, imports and paths.

/// One name that a `use` brings, with its whole path.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    pub(super) name: String,
    /// `pub use`: no arrow by itself.
    pub(super) exported: bool,
}

/// A method of an `impl`.
pub(super) struct Method {
    pub(super) name: String,
    /// How many levels above its own module the one is that it is private to; `None` where all can call it.
    pub(super) above: Option<usize>,
}

/// The names and marks of a text, without comments and literals.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first.is_alphabetic() || first == '_' {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let after = &rest[word..];
            let string =
                matches!(&rest[..word], "r" | "b" | "br" | "c" | "cr") && after.starts_with(['"', '#', '\'']);
            if !string {
                tokens.push(rest[..word].to_owned());
            }
            // `b'x'` and `b"x"` go on as `'x'` and `"x"`; only raw strings end otherwise.
            if string && rest[..word].contains('r') { word + raw_string(after) } else { word }
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            let character = rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'');
            if character {
                quoted(rest, '\'')
            } else {
                1 + rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0)
            }
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() && !first.is_numeric() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `#"…"#`, with any number of marks; of a raw identifier's mark alone.
fn raw_string(text: &str) -> usize {
    let marks = text.bytes().take_while(|byte| *byte == b'#').count();
    if text.as_bytes().get(marks) != Some(&b'"') {
        return marks;
    }
    let end = format!("\"{}", "#".repeat(marks));
    text[marks + 1..].find(&end).map_or(text.len(), |at| marks + 1 + at + end.len())
}

/// Leaves out every item behind `#[cfg(test)]`.
pub(super) fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().take(7).map(String::as_str).eq(["#", "[", "cfg", "(", "test", ")", "]"]) {
            at = end_of(tokens, at + 7);
        } else {
            kept.push(tokens[at].clone());
        }
        at += 1;
    }
    kept
}

/// Where the item that begins here ends: its `;`, or the brace that closes its body.
pub(super) fn end_of(tokens: &[String], start: usize) -> usize {
    let import = tokens[start..]
        .iter()
        .find(|token| !matches!(token.as_str(), "pub"))
        .is_some_and(|token| token == "use");
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" if depth == 1 && !import => return at,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The names that a `use` brings, each with its whole path.
pub(super) fn imported(tree: &[String], before: &[String], exported: bool, imports: &mut Vec<Import>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match tree[at].as_str() {
            "::" => {}
            "{" => {
                let (mut depth, mut start) = (0, at + 1);
                for (end, token) in tree.iter().enumerate().skip(at) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if (token == "," && depth == 1) || depth == 0 {
                        imported(&tree[start..end], &path, exported, imports);
                        start = end + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                return;
            }
            "as" => {
                let name = tree[at + 1].clone();
                imports.push(Import { path, name, exported });
                return;
            }
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    if path.len() > before.len() {
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let name = path.last().expect("an import has a name").clone();
        imports.push(Import { path, name, exported });
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Paths of two names or more.
pub(super) fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut path = vec![tokens[at].clone()];
        while tokens.get(at + 1).is_some_and(|token| token == "::")
            && tokens.get(at + 2).is_some_and(|token| is_name(token))
        {
            path.push(tokens[at + 2].clone());
            at += 2;
        }
        if path.len() > 1 {
            paths.push(path);
        }
        at += 1;
    }
    paths
}

/// The inherent `impl` blocks of a file: the type, and the block's functions.
pub(super) fn implemented(tokens: &[String]) -> Vec<(String, Vec<Method>)> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "impl" && (at == 0 || matches!(tokens[at - 1].as_str(), "}" | "]" | ";")) {
            let open = at + tokens[at..].iter().position(|token| token == "{").unwrap_or(0);
            let end = end_of(tokens, at);
            let head = &tokens[at + 1..open.max(at + 1)];
            let type_name = head.iter().find(|token| token.chars().next().is_some_and(char::is_uppercase));
            if let Some(type_name) = type_name.filter(|_| !head.contains(&"for".to_owned())) {
                let methods = (open..end).filter(|at| tokens[*at] == "fn").map(|at| {
                    let before = &tokens[open..at];
                    let is_word = |token: &&String| !matches!(token.as_str(), "async" | "const" | "unsafe");
                    let mut visibility = before.iter().rev().filter(is_word).map(String::as_str);
                    let above = match visibility.next() {
                        Some(")") if visibility.next() == Some("super") => Some(1),
                        Some(")" | "pub") => None,
                        _ => Some(0),
                    };
                    Method { name: tokens[at + 1].clone(), above }
                });
                blocks.push((type_name.clone(), methods.collect()));
            }
            at = end;
        }
        at += 1;
    }
    blocks
}
