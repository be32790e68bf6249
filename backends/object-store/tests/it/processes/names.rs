//! Names that many processes set.

use std::collections::BTreeMap;

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, NameChange};

use super::{as_child, child, run};
use crate::content::{blob, name, names, put};
use crate::front::Front;
use crate::medium::Medium;

#[tokio::test(flavor = "multi_thread")]
async fn n_processes_add_n_tags_all_survive() {
    const EACH: usize = 16;
    let content = |number: usize, tag: usize| format!("image {number} {tag}").into_bytes();
    if let Some((cache, number)) = as_child().await {
        let mut changes = Vec::new();
        for tag in 0..EACH {
            let image = put(&cache, &content(number, tag)).await.unwrap();
            changes.push(NameChange::Set(name(&format!("a.example/app:{number}-{tag}")), image));
        }
        // Each by itself, or four at once.
        for some in changes.chunks(if number.is_multiple_of(2) { 1 } else { 4 }) {
            cache.update(some).await.unwrap();
        }
        return cache.settle().await;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let test = "names::n_processes_add_n_tags_all_survive";
    run((0..EACH).map(|number| child(test, &service, number)));
    let cache = service.cache().await.unwrap();
    let found = cache.list().await.unwrap();
    assert_eq!(found.len(), EACH * EACH);
    for (name, image) in found {
        let (number, tag) = name.tag().unwrap().split_once('-').unwrap();
        let expected = content(number.parse().unwrap(), tag.parse().unwrap());
        assert_eq!(cache.content(&image, 100).await.unwrap(), expected);
    }
    assert_eq!(medium.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_changed_together_never_differ() {
    const PROCESSES: usize = 6;
    const ROUNDS: usize = 6;
    const PAIR: [&str; 2] = ["a.example/a:1", "a.example/b:1"];
    if let Some((cache, number)) = as_child().await {
        for round in 0..ROUNDS {
            let image = put(&cache, format!("{number} {round}").as_bytes()).await.unwrap();
            let changes = PAIR.map(|text| NameChange::Set(name(text), image.clone()));
            cache.update(&changes).await.unwrap();
        }
        return cache.settle().await;
    }
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let test = "names::names_that_are_changed_together_never_differ";
    run((0..PROCESSES).map(|number| child(test, &service, number)));
    let found: BTreeMap<_, _> = names(&service.cache().await.unwrap()).await.into_iter().collect();
    assert_eq!(found[PAIR[0]], found[PAIR[1]]);
    // The last change of one of the processes.
    let last = (0..PROCESSES).map(|number| blob(format!("{number} {}", ROUNDS - 1).as_bytes()));
    assert!(last.map(|image| image.digest().to_string()).any(|last| last == found[PAIR[0]]), "{found:?}");
    assert_eq!(medium.left(), [""; 0]);
}
