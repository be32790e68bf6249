//! Listings of registries whose pages lead in a circle.

use std::fmt;

use async_trait::async_trait;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, Names, Opened, Page, RawManifest,
    Reference, Result,
};

/// A registry whose second page of tags, or of repositories, is followed by its first.
#[derive(Clone, Copy, Debug)]
struct Circle {
    in_tags: bool,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("circle:")
    }
}

impl Circle {
    fn page(name: &str, page: &Page, in_circle: bool) -> Names {
        let next = if page.after.as_deref() == Some("b") { "a" } else { "b" };
        Names { names: vec![name.to_owned()], next: in_circle.then(|| next.to_owned()) }
    }
}

#[async_trait]
impl ImageRegistry for Circle {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        Err(Error::not_found(reference.to_string()))
    }

    async fn blob(&self, reference: &Reference, _blob: &Descriptor, _range: BlobRange) -> Result<Blob> {
        Err(Error::not_found(reference.to_string()))
    }

    async fn tags(&self, _repository: &str, page: Page) -> Result<Names> {
        Ok(Self::page("latest", &page, self.in_tags))
    }

    async fn repositories(&self, page: Page) -> Result<Names> {
        Ok(Self::page("circle.example/app", &page, !self.in_tags))
    }
}

#[tokio::test]
async fn pages_in_a_circle_end_in_an_error() {
    for in_tags in [false, true] {
        let opened = Opened { registry: Box::new(Circle { in_tags }), reference: None };
        let error = opened.references().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
