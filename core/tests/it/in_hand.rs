//! Names that move between two looks: what was found first is what is worked on.

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Completeness, CopyOptions, Descriptor, ErrorKind,
    ImageRegistry as _, ImageSource as _, Materializers, NameChange, Platforms, PullOptions, PullPolicy,
    Reference, RegistrySource, materialize, pull,
};

use crate::events::Watched;
use crate::fixture::{AMD64, Drain, Scripted, index_of, layer, name, options};

/// A registry and a cache with two indexes, the names of which are those; what they stand for.
async fn staged() -> (MemoryRegistry, Watched, [Reference; 2], [Descriptor; 2]) {
    let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
    let names = ["example.com/app:1", "example.com/app:2"].map(name);
    let mut tops = Vec::new();
    for image in &names {
        let layers = [layer(image.tag().unwrap(), 300)];
        index_of(&registry, image, &[("amd64", &layers)]).await;
        tops.push(pull(&registry, image, &cache, &options(PullPolicy::IfMissing)).await.unwrap().descriptor);
    }
    // No other name leads to it: what is found by its digest is found through this one.
    cache.update(&[NameChange::Remove(names[1].clone())]).await.unwrap();
    (registry, cache, names, tops.try_into().unwrap())
}

#[tokio::test]
async fn what_is_pulled_is_one_image_whatever_becomes_of_its_name() {
    for policy in [PullPolicy::Always, PullPolicy::IfMissing, PullPolicy::Never] {
        for is_moved in [true, false] {
            let (registry, cache, [image, _], [first, second]) = staged().await;
            let scripted = Scripted::new(&registry, &[]);
            cache.move_after_find(if is_moved {
                NameChange::Set(image.clone(), second)
            } else {
                NameChange::Remove(image.clone())
            });
            let pulled = pull(&scripted, &image, &cache, &options(policy)).await.unwrap();
            assert_eq!((&pulled.descriptor, pulled.cached), (&first, true), "{policy:?}, {is_moved}");
            assert_eq!(scripted.manifest_requests(), 0, "{policy:?}, {is_moved}");
        }
    }
}

#[tokio::test]
async fn an_image_that_takes_the_place_of_one_that_was_collected_is_found() {
    let (registry, cache, [image, _], [first, second]) = staged().await;
    cache.quarantine(first.digest()).await.unwrap();
    cache.move_after_find(NameChange::Set(image.clone(), second.clone()));
    let scripted = Scripted::new(&registry, &[]);
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::Never)).await.unwrap();
    assert_eq!((pulled.descriptor, scripted.requests()), (second, 0));
}

#[tokio::test]
async fn what_is_pushed_is_one_image_whatever_becomes_of_its_name() {
    let one = Platforms::One(AMD64.parse().unwrap());
    for platforms in [Platforms::All, one] {
        let (_, cache, [image, _], [first, second]) = staged().await;
        let source = cache.new_source(&image, &AMD64.parse().unwrap()).await.unwrap();
        let expected = if platforms == Platforms::All { first.digest() } else { source.raw().digest() };
        cache.move_after_find(NameChange::Set(image.clone(), second));
        let target = MemoryRegistry::new("b");
        let copy = CopyOptions { platforms, ..CopyOptions::default() };
        let push = copy;
        let pushed = cache.push(&image, &target, &image, &push).await.unwrap().descriptor;
        assert_eq!(pushed.digest(), expected);
        assert_eq!(target.manifest(&image).await.unwrap().digest(), expected);
    }
}

#[tokio::test]
async fn what_is_opened_is_one_image_whatever_becomes_of_its_name() {
    let amd64 = AMD64.parse().unwrap();
    for is_moved in [true, false] {
        let (_, cache, [image, _], [first, second]) = staged().await;
        let change = || {
            if is_moved {
                NameChange::Set(image.clone(), second.clone())
            } else {
                NameChange::Remove(image.clone())
            }
        };
        cache.move_after_find(change());
        let source = cache.new_source(&image, &amd64).await.unwrap();
        assert_eq!(source.root().digest(), first.digest());
        cache.update(&[NameChange::Set(image.clone(), first)]).await.unwrap();
        cache.move_after_find(change());
        assert_eq!(cache.completeness(&image, &amd64).await.unwrap(), Completeness::Complete);
    }
}

#[tokio::test]
async fn files_are_made_of_the_image_in_hand() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    index_of(&registry, &image, &[("amd64", &[layer("a", 300), layer("b", 10), layer("a", 300)])]).await;
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    cache.update(&[NameChange::Remove(image.clone())]).await.unwrap();
    let source = RegistrySource::in_hand(
        Box::new(cache.as_registry()),
        image.clone(),
        pulled.manifest.clone(),
        pulled.config.clone(),
    );
    let (formats, options) = (Materializers::none(), PullOptions::default());
    let made = materialize(&source, &cache, &Drain, &formats, &options).await.unwrap();
    let layers: Vec<_> = made.files.iter().map(|file| file.diff_id.clone()).collect();
    assert_eq!(layers, pulled.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>());
    let names: Vec<_> = made.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["layer-00.empty", "layer-01.empty", "layer-02.empty"]);
    // What is not here is not fetched.
    let cache = MemoryCache::new().unwrap();
    let source =
        RegistrySource::in_hand(Box::new(cache.as_registry()), image, pulled.manifest, pulled.config);
    let error = materialize(&source, &cache, &Drain, &formats, &options).await.unwrap_err();
    assert_eq!((error.kind(), error.context("image")), (&ErrorKind::NotFound, Some("example.com/app:1")));
}
