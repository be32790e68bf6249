//! Caches by URI scheme: what opens, and what is refused.

use plyfold_core::memory::MemoryCache;
use plyfold_core::{CacheEntry, CacheProvider, CacheRequest, Caches, Error, ErrorKind, OptionFault, Options};
use serde::Deserialize;

const SHELF: CacheEntry = CacheEntry {
    schemes: &["shelf", "shelves"],
    package: "one",
    summary: "images on a shelf",
    syntax: "shelf:NAME",
    options: "depth=NUMBER, kind=deep|flat",
    open: |request| Box::pin(async move { opened(&request) }),
};

/// Another crate's, which has an option that the first one lacks.
const BOX: CacheEntry = CacheEntry {
    schemes: &["box"],
    package: "two",
    summary: "images in a box",
    syntax: "box:NAME",
    options: "lid=true|false",
    open: |request| {
        Box::pin(async move {
            request.options.refuse()?;
            Ok(Box::new(MemoryCache::new()?) as _)
        })
    },
};

plyfold_core::register!(CacheEntry { schemes: &["linked-shelf"], ..SHELF });

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    depth: u32,
    kind: Option<String>,
}

/// An empty cache; at a depth of 7 an error with what was asked for.
fn opened(request: &CacheRequest) -> plyfold_core::Result<Box<dyn CacheProvider>> {
    let Config { depth, kind } = request.options.config()?;
    match request.location.rest.as_str() {
        "none" if !request.makes => Err(Error::not_found("there is no cache")),
        rest if depth == 7 => Err(Error::limit("too deep")
            .with_context("uri", &request.uri)
            .with_context("rest", rest)
            .with_context("kind", kind.unwrap_or_default())),
        _ => Ok(Box::new(MemoryCache::new()?)),
    }
}

fn caches() -> Caches {
    Caches::none().with(SHELF).unwrap().with(BOX).unwrap()
}

#[tokio::test]
async fn a_scheme_opens_its_cache() {
    let caches = caches();
    let options = Options::parse(["depth=7", "kind=deep"]).unwrap();
    for uri in ["shelf:top/left", "shelves://top/left"] {
        let error = caches.open(uri, &options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit);
        let said = ["uri", "rest", "kind"].map(|key| error.context(key).unwrap());
        assert_eq!(said, [uri, "top/left", "deep"]);
        assert!(caches.open(uri, &Options::default()).await.is_ok());
        assert_eq!(caches.of(uri).unwrap().package, "one");
    }
    let names: Vec<&str> = caches.iter().map(|entry| entry.schemes[0]).collect();
    assert_eq!(names, ["box", "shelf"]);
    assert!(Caches::linked().unwrap().open("linked-shelf:a", &Options::default()).await.is_ok());
}

#[tokio::test]
async fn an_absent_one_is_made_where_that_is_asked_for() {
    let caches = caches();
    let options = Options::default();
    assert!(caches.open("shelf:none", &options).await.is_ok());
    assert_eq!(*caches.open_existing("shelf:none", &options).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(caches.open_existing("shelf:some", &options).await.is_ok());
}

#[tokio::test]
async fn unknown_schemes_and_options_are_refused_with_those_that_there_are() {
    let caches = caches();
    for (caches, uri) in
        [(&caches, "shelve:a"), (&caches, "/a/path"), (&caches, "Shelf:a"), (&Caches::none(), "shelf:a")]
    {
        let error = caches.open(uri, &Options::default()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{uri}");
        let lists = caches.iter().all(|entry| error.hint().unwrap().contains(entry.schemes[0]));
        assert!(lists, "{uri}: {error:?}");
    }
    for (option, is_of_another) in [("lid=true", true), ("dephts=1", false)] {
        let error = caches.open("shelf:a", &Options::parse([option]).unwrap()).await.unwrap_err();
        assert!(matches!(error.detail(), Some(OptionFault::Unknown(..))), "{error}");
        assert_eq!(error.hint().is_some_and(|hint| hint.contains("box")), is_of_another, "{error:?}");
    }
    let wrong = caches.open("shelf:a", &Options::parse(["depth=deep"]).unwrap()).await.unwrap_err();
    assert!(matches!(wrong.detail(), Some(OptionFault::Value(name, _)) if name == "depth"), "{wrong}");
}

#[test]
fn a_scheme_is_of_one_crate() {
    let other = CacheEntry { package: "two", schemes: &["drawer", "shelves"], ..SHELF };
    let error = caches().with(other).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(error.message().contains("one") && error.message().contains("two"), "{error}");
    // The same crate may be linked and added.
    assert!(caches().with(SHELF).is_ok());
    assert!(caches().without("shelves").of("shelf:a").is_err());
}
