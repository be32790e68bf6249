//! What requests need permission for, and the scopes to ask a token server for ("Token Scope Documentation"): what we
//! need, as the registry names it.

use reqwest::Url;

use crate::policy::origin;

/// The permissions that requests need.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access<'a> {
    Catalog,
    Delete,
    /// No permission: only authentication.
    Login,
    /// Push, and pull from another repository to mount from it.
    Mount(&'a str),
    Pull,
    Push,
}

/// What a request needs permission for, on one host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Scope {
    /// Scheme, host and port: tokens stay with them.
    pub(crate) origin: String,
    /// The name that the host's credentials are stored under.
    pub(crate) registry: String,
    /// The repository, for credentials of namespaces; empty for the registry as a whole.
    pub(crate) repository: String,
    /// The scopes in the token server's syntax, separated by blanks ("Token Scope Documentation").
    pub(crate) access: String,
}

/// What a request needs permission for, independent of the host.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    repository: String,
    /// The repository that is mounted from.
    from: Option<String>,
    actions: &'static str,
}

impl Permission {
    pub(crate) fn new(repository: &str, access: Access<'_>) -> Self {
        let (actions, from) = match access {
            Access::Catalog => ("*", None),
            Access::Delete => ("pull,push,delete", None),
            Access::Login => ("", None),
            Access::Mount(from) => ("pull,push", Some(from.to_owned())),
            Access::Pull => ("pull", None),
            Access::Push => ("pull,push", None),
        };
        Self { repository: repository.to_owned(), from, actions }
    }

    /// Empty for the registry as a whole.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    pub(crate) fn writes(&self) -> bool {
        self.actions.contains("push")
    }

    /// The same on a host, in the token server's syntax; the host may have other repository names.
    pub(crate) fn on(&self, root: &Url, registry: &str, name: impl Fn(&str) -> String) -> Scope {
        let (repository, actions) = (name(&self.repository), self.actions);
        let mut access = match actions {
            "" => String::new(),
            "*" => "registry:catalog:*".to_owned(),
            _ => format!("repository:{repository}:{actions}"),
        };
        if let Some(from) = &self.from {
            access = format!("{access} repository:{}:pull", name(from));
        }
        Scope { origin: origin(root), registry: registry.to_owned(), repository, access }
    }
}

/// Actions that a challenge does not add to what we need: a token for reading never becomes one for writing.
const WRITES: [&str; 3] = ["push", "delete", "*"];

/// The scopes that answer a challenge, separated by blanks; `wanted` is what we need, in the names that we know.
///
/// A registry may have other names for a repository than its clients use: with a prefix, in upper case, of another
/// resource type. It checks tokens by its own names, so these are asked for. What we need and it does not mention is
/// kept, because one token serves a whole push.
pub(super) fn answered(wanted: &str, asked: &str) -> String {
    let ours: Vec<Entry<'_>> = wanted.split_ascii_whitespace().map(Entry::parse).collect();
    let theirs: Vec<Entry<'_>> = asked.split_ascii_whitespace().map(Entry::parse).collect();
    if theirs.is_empty() {
        return wanted.to_owned();
    }
    // A scope of no resource stands for all that the registry has.
    if theirs.iter().all(|entry| entry.actions.is_none()) {
        return asked.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    }
    let is_theirs = |entry: &Entry<'_>| theirs.iter().any(|other| other.resource == entry.resource);
    // The repository of the request stands first; the one that is mounted from may follow.
    let mut renamed = ours.first().filter(|first| !is_theirs(first));
    let mut answer = Vec::new();
    for entry in &theirs {
        let same = ours.iter().find(|own| own.resource == entry.resource).or_else(|| renamed.take());
        answer.extend(entry.with(same));
    }
    let unnamed = ours.iter().skip(usize::from(ours.first().is_some_and(|first| !is_theirs(first))));
    answer.extend(unnamed.filter(|own| !is_theirs(own)).map(|own| own.text.to_owned()));
    answer.join(" ")
}

/// `repository:library/app:pull,push`.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    text: &'a str,
    /// Type and name.
    resource: &'a str,
    /// `None` for a scope of another form.
    actions: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Self {
        match text.rsplit_once(':').filter(|(resource, _)| resource.contains(':')) {
            Some((resource, actions)) => Self { text, resource, actions: Some(actions) },
            None => Self { text, resource: text, actions: None },
        }
    }

    fn actions(&self) -> impl Iterator<Item = &'a str> {
        self.actions.into_iter().flat_map(|actions| actions.split(',')).filter(|action| !action.is_empty())
    }

    /// This scope with the actions that we need on it, and those that it names and that change nothing.
    fn with(&self, own: Option<&Entry<'_>>) -> Option<String> {
        if self.actions.is_none() {
            return Some(self.text.to_owned());
        }
        let mut actions: Vec<&str> = own.into_iter().flat_map(Entry::actions).collect();
        for action in self.actions() {
            if !actions.contains(&action) && !WRITES.contains(&action) {
                actions.push(action);
            }
        }
        (!actions.is_empty()).then(|| format!("{}:{}", self.resource, actions.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_challenge() {
        let pull = "repository:app:pull";
        for (wanted, asked, expected) in [
            (pull, "", pull),
            (pull, "repository:app:pull", pull),
            (pull, "repository:library/app:pull", "repository:library/app:pull"),
            (pull, "repository:Org/App:pull", "repository:Org/App:pull"),
            (pull, "repository(plugin):app:pull", "repository(plugin):app:pull"),
            (pull, "repository:r.example:5000/app:pull", "repository:r.example:5000/app:pull"),
            (pull, "repository:app:metadata_read", "repository:app:pull,metadata_read"),
            (pull, "repository:app:pull  repository:base:pull", "repository:app:pull repository:base:pull"),
            (pull, "aws", "aws"),
            (pull, "aws\tglobal", "aws global"),
            (pull, "aws repository:library/app:pull", "aws repository:library/app:pull"),
            ("registry:catalog:*", "registry:catalog:*", "registry:catalog:*"),
            ("registry:catalog:*", "registry:all:*", "registry:all:*"),
            ("", "repository:app:pull", "repository:app:pull"),
            ("", "", ""),
        ] {
            assert_eq!(answered(wanted, asked), expected, "{wanted} | {asked}");
        }
    }

    #[test]
    fn a_push_keeps_what_it_needs() {
        let push = "repository:app:pull,push";
        let mount = "repository:app:pull,push repository:base:pull";
        for (wanted, asked, expected) in [
            (push, "repository:app:pull", push),
            (push, "repository:library/app:pull", "repository:library/app:pull,push"),
            (mount, "repository:app:pull,push", mount),
            (mount, "repository:library/app:pull", "repository:library/app:pull,push repository:base:pull"),
            (
                mount,
                "repository:library/app:pull,push repository:base:pull",
                "repository:library/app:pull,push repository:base:pull",
            ),
        ] {
            assert_eq!(answered(wanted, asked), expected, "{wanted} | {asked}");
        }
    }

    #[test]
    fn a_challenge_cannot_make_a_reader_a_writer() {
        let pull = "repository:app:pull";
        for (asked, expected) in [
            ("repository:app:pull,push,delete", pull),
            ("repository:app:*", pull),
            ("repository:secret:push", "repository:secret:pull"),
            ("repository:app:pull repository:secret:push,delete", pull),
        ] {
            assert_eq!(answered(pull, asked), expected, "{asked}");
        }
        assert_eq!(answered("", "registry:catalog:*"), "");
    }
}
