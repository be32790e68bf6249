//! The files of each crate stand on floors: a file names only what files below it define.
//!
//! An arrow runs from file A to file B when A names something that B defines: by a `use`, by a path, or by calling a method
//! that B implements for a type of another file. Re-exports (`pub use`) are not arrows, and what is under `#[cfg(test)]`
//! is not read. A circle is a set of files that reach each other; the failure lists its arrows with the names.
//!
//! Limits: a method counts only when its crate has one function of that name, and a name in the body of a macro counts
//! as a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use source::{Import, Method, end_of, implemented, imported, paths, tokens, without_tests};

mod source;

/// From a file to a file, with the names that the first takes from the second.
type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

#[test]
fn no_crate_has_a_circle() {
    let mut found = String::new();
    for sources in [
        "backends/archive/src",
        "backends/layout/src",
        "backends/object-store/src",
        "backends/oci-client/src",
        "backends/registry/src",
        "benches/guard/src",
        "benches/src",
        "conformance/src",
        "core/src",
        "examples/backend/src",
        "examples/cache/src",
        "examples/command/src",
        "examples/concat/src",
        "examples/materializer/src",
        "materializers/disk/src",
        "materializers/erofs/src",
        "materializers/ext4/src",
        "materializers/verity/src",
        "materializers/vmdk/src",
        "plyfold/src",
        "sha256/src",
    ] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(sources);
        let circles = circles(&Crate::read(&root).arrows());
        if !circles.is_empty() {
            let _ = write!(found, "{sources}\n{circles}");
        }
    }
    assert!(found.is_empty(), "files that name each other in a circle:\n{found}");
}

#[test]
fn circles_are_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/floors/fixture");
    let circles = circles(&Crate::read(&root).arrows());
    let expected = "    caller.rs -> method.rs: .twice\n    method.rs -> caller.rs: Type\n\n\
        \x20   lower.rs -> upper.rs: Upper\n    upper.rs -> lower.rs: Lower\n\n";
    assert_eq!(circles, expected);
}

/// The source files of a crate, by the path of their module: `a::b` is `["a", "b"]`.
struct Crate {
    files: BTreeMap<Vec<String>, File>,
}

/// A method of a type of another file.
struct Distant {
    file: String,
    /// The module that it is private to.
    module: Option<Vec<String>>,
}

impl Distant {
    fn is_visible(&self, from: &[String]) -> bool {
        self.module.as_ref().is_none_or(|module| from.starts_with(module))
    }
}

#[derive(Default)]
struct File {
    /// Relative to the crate's sources.
    name: String,
    tokens: Vec<String>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the crate's sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && path.file_stem().is_some_and(|stem| stem != "tests")
                {
                    let name = path.strip_prefix(root).expect("below its root");
                    let text = fs::read_to_string(&path).expect("a source file");
                    let is_program = name == Path::new("main.rs") && root.join("lib.rs").exists();
                    let module = if is_program { vec!["main".to_owned()] } else { module(name) };
                    files.insert(module, File::read(name, &text));
                }
            }
        }
        assert!(!files.is_empty(), "no source file in {}", root.display());
        Self { files }
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        let methods = self.methods();
        for (module, file) in &self.files {
            let mut named = |target: Option<(&str, String)>| {
                if let Some((target, name)) = target.filter(|(target, _)| *target != file.name) {
                    arrows.entry((file.name.clone(), target.to_owned())).or_default().insert(name);
                }
            };
            for import in &file.imports {
                let used = !import.exported || file.tokens.contains(&import.name);
                if used {
                    named(self.defining(module, &import.path, 0));
                }
            }
            for path in paths(&file.tokens) {
                named(self.defining(module, &path, 0));
            }
            for call in file.tokens.windows(3).filter(|tokens| tokens[0] == "." && tokens[2] == "(") {
                let method = methods.get(&call[1]).filter(|method| method.is_visible(module));
                named(method.map(|method| (method.file.as_str(), format!(".{}", call[1]))));
            }
        }
        arrows
    }

    /// The file that defines what `path` names in `module`; `None` for other crates, locals, and modules themselves.
    fn defining(&self, module: &[String], path: &[String], depth: usize) -> Option<(&str, String)> {
        let mut place = module.to_vec();
        let mut path = path;
        // A path may begin with any number of these.
        while let Some(first) = path.first() {
            match first.as_str() {
                "crate" | "plyfold" => place.clear(),
                "super" => drop(place.pop()),
                "self" => {}
                _ => break,
            }
            path = &path[1..];
        }
        while let Some((name, rest)) = path.split_first() {
            let file = self.files.get(&place)?;
            let child = [place.as_slice(), std::slice::from_ref(name)].concat();
            if self.files.contains_key(&child) {
                place = child;
                path = rest;
            } else if file.items.contains(name) {
                return Some((&file.name, name.clone()));
            } else {
                let import =
                    file.imports.iter().find(|import| import.name == *name && import.path != path)?;
                let whole = [import.path.as_slice(), rest].concat();
                return if depth < 8 { self.defining(&place, &whole, depth + 1) } else { None };
            }
        }
        None
    }

    /// Methods of a type of another file, by name; a name that the crate defines twice is left out.
    fn methods(&self) -> BTreeMap<String, Distant> {
        let mut times = BTreeMap::<&str, usize>::new();
        for pair in self.files.values().flat_map(|file| file.tokens.windows(2)).filter(|pair| pair[0] == "fn")
        {
            *times.entry(&pair[1]).or_default() += 1;
        }
        let mut methods = BTreeMap::new();
        for (module, file) in &self.files {
            for (owner, found) in implemented(&file.tokens) {
                if self.defining(module, &[owner], 0).is_some_and(|(owner, _)| owner != file.name) {
                    let single = found.into_iter().filter(|method| times[method.name.as_str()] == 1);
                    methods.extend(single.map(|Method { name, above }| {
                        let module = above.map(|above| module[..module.len().saturating_sub(above)].to_vec());
                        (name, Distant { file: file.name.clone(), module })
                    }));
                }
            }
        }
        methods
    }
}

impl File {
    fn read(name: &Path, text: &str) -> Self {
        let mut file = Self { name: name.to_string_lossy().into_owned(), ..Self::default() };
        let tokens = without_tests(&tokens(text));
        let (mut at, mut depth) = (0, 0_usize);
        while at < tokens.len() {
            let next = tokens.get(at + 1);
            match tokens[at].as_str() {
                "use" => {
                    let end = end_of(&tokens, at);
                    let exported = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
                    imported(&tokens[at + 1..end], &[], exported, &mut file.imports);
                    at = end;
                }
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth = depth.saturating_sub(1),
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "mod"
                    if depth == 0 =>
                {
                    file.items.extend(next.cloned());
                }
                "macro_rules" => file.items.extend(tokens.get(at + 2).cloned()),
                _ => {}
            }
            file.tokens.push(tokens[at].clone());
            at += 1;
        }
        file
    }
}

/// The path of the module in a file: `a/mod.rs` and `a.rs` are `a`.
fn module(name: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        name.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The circles, one a paragraph: each arrow, with the names that it stands for.
fn circles(arrows: &Arrows) -> String {
    let reach = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(file) = next.pop() {
            for (_, target) in arrows.keys().filter(|(source, _)| *source == file) {
                if seen.insert(target.clone()) {
                    next.push(target.clone());
                }
            }
        }
        seen
    };
    let files: BTreeSet<&String> = arrows.keys().map(|(source, _)| source).collect();
    let reached: BTreeMap<&String, BTreeSet<String>> =
        files.iter().map(|file| (*file, reach(file))).collect();
    let together = |a: &String, b: &String| {
        reached[a].contains(b) && reached.get(b).is_some_and(|back| back.contains(a))
    };
    let mut report = String::new();
    let mut done = BTreeSet::new();
    for file in files.iter().filter(|file| together(file, file)) {
        let circle: Vec<&&String> = files.iter().filter(|other| together(file, other)).collect();
        if !done.insert(circle[0]) {
            continue;
        }
        for ((source, target), names) in arrows {
            if circle.contains(&&source) && circle.contains(&&target) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let _ = writeln!(report, "    {source} -> {target}: {}", names.join(", "));
            }
        }
        report.push('\n');
    }
    report
}
