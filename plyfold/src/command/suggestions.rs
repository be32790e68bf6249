//! Suggestions for misspelled names.

use std::time::Duration;

use crate::{
    CacheProvider as _, Descriptor, Error, ErrorKind, Images, Opened, Page, Reference, Result, printable,
    reference,
};

use super::context::Context;

/// The number of suggestions.
const OFFERED: usize = 3;

/// Tags that are looked at: one answer of a registry.
const TAGS: usize = 1000;

/// How long a registry may take to list them, once it has said that there is no such tag.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hint for a name that is not in the store: the ones there that are like it.
pub(crate) async fn in_store(images: &Images, wanted: &Reference) -> String {
    near(images, wanted, "`plyfold list` shows what is in the store").await
}

/// The same for the name of a snapshot.
pub(crate) async fn snapshot_in_store(images: &Images, wanted: &Reference) -> String {
    near(images, wanted, "`plyfold snapshot list` shows the snapshots in the store").await
}

async fn near(images: &Images, wanted: &Reference, list: &str) -> String {
    // Ignore errors of the store: they would hide this error.
    let names = images.list_cached().await.unwrap_or_default();
    let names: Vec<String> = names.into_iter().map(|(name, _)| name.whole()).collect();
    match offered(&nearest_names(&wanted.whole(), &names)) {
        Some(names) => format!("did you mean {names}? {list}"),
        None => list.to_owned(),
    }
}

/// The same error, with tags of the repository like the one that is not there: one request.
pub(crate) async fn with_tags(
    error: Error,
    context: &Context,
    image: &str,
    opened: &Opened,
    wanted: &Reference,
) -> Error {
    let Some(tag) = wanted.tag().filter(|_| wanted.digest().is_none()) else { return error };
    if *error.kind() != ErrorKind::NotFound || !opened.registry.capabilities().tags {
        return error;
    }
    // How the place is written that the tags are in, if not by the name of their repository: `oci:DIR`.
    let is_remote = context.image(image).is_ok_and(|image| image.is_remote(&context.backends));
    let place = (!is_remote).then(|| opened.registry.to_string());
    let repository = reference::repository_of(wanted);
    let page = Page { limit: Some(TAGS), after: None };
    let tags = tokio::time::timeout(PATIENCE, opened.registry.tags(&repository, page)).await;
    let Ok(Ok(tags)) = tags else { return error };
    // Something else is missing, such as a layer.
    if tags.names.iter().any(|there| there == tag) {
        return error;
    }
    let near = nearest(tag, &tags.names);
    let all = format!("`plyfold tags {}` lists all tags", printable(place.as_ref().unwrap_or(&repository)));
    let image_of = |tag: &String| match &place {
        None => format!("{repository}:{tag}"),
        // Names that are made of a tag alone.
        Some(place) if repository.starts_with("localhost/") => format!("{place}:{tag}"),
        Some(place) => format!("{place}:{repository}:{tag}"),
    };
    match offered(&near.iter().map(image_of).collect::<Vec<_>>()) {
        Some(names) => error.with_better_hint(format!("did you mean {names}? {all}")),
        // Places on this machine say themselves what they hold.
        None if tags.names.is_empty() || (place.is_some() && error.hint().is_some()) => error,
        None => error.with_better_hint(all),
    }
}

/// What a name stands for in the store.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) with similar names when it is not there.
pub(crate) async fn known(images: &Images, name: &Reference) -> Result<Descriptor> {
    if let Some(descriptor) = images.cache().find_descriptor(name).await? {
        return Ok(descriptor);
    }
    Err(not_known(name, in_store(images, name).await))
}

/// A name that is not in the store.
pub(crate) fn not_known(name: &Reference, hint: String) -> Error {
    Error::not_found("not in the store").with_image(name).with_hint(hint)
}

fn offered(names: &[String]) -> Option<String> {
    let names: Vec<String> = names.iter().map(|name| printable(name)).collect();
    let (last, others) = names.split_last()?;
    Some(if others.is_empty() { last.clone() } else { format!("{} or {last}", others.join(", ")) })
}

/// The tags that are most like the one wanted, best first; without accidental matches.
fn nearest(wanted: &str, tags: &[String]) -> Vec<String> {
    best(tags.iter().filter_map(|tag| Some((likeness(wanted, tag)?, tag))))
}

/// The same for whole names: one part of them differs, or the registry does.
fn nearest_names(wanted: &str, names: &[String]) -> Vec<String> {
    let parts = |name: &str| -> Vec<String> { name.split_inclusive(['/', ':']).map(str::to_owned).collect() };
    let wanted = parts(wanted);
    let likeness = |name: &String| {
        let name = parts(name);
        // Repository and tag, which people write without a registry.
        let tail = |name: &[String]| name.len().saturating_sub(2);
        if wanted[tail(&wanted)..] == name[tail(&name)..] {
            return Some(1);
        }
        let mut others = wanted.iter().zip(&name).filter(|(wanted, part)| wanted != part);
        let one = others.next().filter(|_| wanted.len() == name.len() && others.next().is_none());
        one.and_then(|(wanted, part)| likeness(wanted, part))
    };
    best(names.iter().filter_map(|name| Some((likeness(name)?, name))))
}

fn best<'a>(near: impl Iterator<Item = (usize, &'a String)>) -> Vec<String> {
    let mut near: Vec<(usize, &String)> = near.collect();
    near.sort();
    near.into_iter().take(OFFERED).map(|(_, name)| name.clone()).collect()
}

/// The edit distance to the wanted word, if it is small.
fn likeness(wanted: &str, word: &str) -> Option<usize> {
    let far = wanted.chars().count().div_ceil(3).max(1);
    let is_part = wanted.len() > 1 && (word.starts_with(wanted) || word.ends_with(wanted));
    let distance = if is_part { 1 } else { strsim::osa_distance(wanted, word) };
    (distance <= far).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let tags = ["1", "1.2", "1.2.3", "latest", "v1.2.4", "edge"].map(str::to_owned);
        for (wanted, near) in [
            ("lates", vec!["latest"]),
            ("latset", vec!["latest"]),
            ("1.2.4", vec!["1.2.3", "v1.2.4", "1.2"]),
            ("1.3", vec!["1.2"]),
            ("nightly", vec![]),
        ] {
            assert_eq!(nearest(wanted, &tags), near, "{wanted}");
        }
        let names = ["localhost/sample:latest", "a.example/app:1", "a.example/app:2"].map(str::to_owned);
        for (wanted, near) in [
            ("docker.io/library/sample:latest", vec!["localhost/sample:latest"]),
            ("localhost/sampel:latest", vec!["localhost/sample:latest"]),
            ("a.example/app:3", vec!["a.example/app:1", "a.example/app:2"]),
            ("a.example/none:1", vec![]),
            ("b.example/other:1", vec![]),
        ] {
            assert_eq!(nearest_names(wanted, &names), near, "{wanted}");
        }
    }
}
