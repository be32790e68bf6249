//! How an image is named on the command line.

use std::path::Path;

use plyfold::{Backends, Error, Location, Reference, Result, printable, reference};

/// What somebody has written for an image.
#[derive(Debug)]
pub(crate) enum Image {
    /// A name without a scheme: it is in a registry, Docker Hub if it does not say which, as it is for docker.
    Name(Reference),
    /// `scheme:rest`.
    Uri(String),
}

impl Image {
    pub(crate) fn parse(image: &str, backends: &Backends) -> Result<Self> {
        if let Ok(location) = Location::parse(image)
            && let Some(backend) = backends.of(image)
        {
            let is_registry = backend.schemes.contains(&"registry");
            return if is_registry && is_lone_host(&location.rest) {
                Err(no_repository(&location.rest))
            } else {
                Ok(Self::Uri(image.to_owned()))
            };
        }
        if let Some(path) = path_in(image) {
            return Err(path_or_name(image, path));
        }
        if ["/", "./", "../"].iter().any(|start| image.starts_with(start)) {
            let hint =
                format!("write oci:{image} for a layout directory, docker-archive:{image} for an archive");
            return Err(Error::config("a path needs a scheme").with_image(printable(image)).with_hint(hint));
        }
        if image.strip_suffix('/').is_some_and(|host| !host.contains('/')) {
            return Ok(Self::Uri(format!("registry:{image}")));
        }
        match reference::parse(image) {
            Ok(_) if is_lone_host(image) => Err(no_repository(image)),
            Ok(name) => Ok(Self::Name(name)),
            // With a scheme that nobody knows the better error is that of the backends, which lists them.
            Err(_) if Location::parse(image).is_ok() => Ok(Self::Uri(image.to_owned())),
            Err(e) => Err(e),
        }
    }

    /// As a URI.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Name(name) => format!("registry:{}", name.whole()),
            Self::Uri(uri) => uri.clone(),
        }
    }

    /// As [`Images`](plyfold::Images) takes it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Name(name) => name.whole(),
            Self::Uri(uri) => uri.clone(),
        }
    }

    /// Whether it takes a network to ask for it.
    pub(crate) fn is_remote(&self, backends: &Backends) -> bool {
        match self {
            Self::Name(_) => true,
            Self::Uri(uri) => backends.of(uri).is_some_and(|backend| backend.schemes.contains(&"registry")),
        }
    }
}

fn path_or_name(image: &str, path: &Path) -> Error {
    let scheme = if path.is_dir() { "oci" } else { "docker-archive" };
    Error::config(format!("{} is a path here, and may be a name", path.display()))
        .with_image(printable(image))
        .with_hint(format!("write {scheme}:{image} for the path, or registry:{image} for the name"))
}

/// An image at the path that a bare name begins with: a file, or a layout directory.
fn path_in(image: &str) -> Option<&Path> {
    let whole = Path::new(image);
    let before_tag = image.rsplit_once(':').map(|(path, _)| Path::new(path));
    let holds_image = |path: &&Path| path.is_file() || path.join("oci-layout").is_file();
    [Some(whole), before_tag].into_iter().flatten().find(holds_image)
}

/// Whether this is a host with a port. Read as docker reads it, it is an image `host` of Docker Hub by a tag.
fn is_lone_host(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, port)| {
        let is_port = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
        is_port && !host.contains('/') && (host == "localhost" || host.contains('.'))
    })
}

fn no_repository(host: &str) -> Error {
    Error::config("a registry, and no repository of it")
        .with_image(printable(host))
        .with_hint(format!("write {host}/REPOSITORY, or registry:{host}/ for the registry itself"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: &str) -> String {
        let backends = Backends::linked().unwrap();
        Image::parse(image, &backends).map_or_else(|e| e.to_string(), |image| image.uri())
    }

    #[test]
    fn names_are_in_registries() {
        for (image, uri) in [
            ("alpine", "registry:docker.io/library/alpine:latest"),
            ("alpine:5000", "registry:docker.io/library/alpine:5000"),
            ("localhost:5000/app", "registry:localhost:5000/app:latest"),
            ("localhost:5000/", "registry:localhost:5000/"),
            ("ghcr.io/", "registry:ghcr.io/"),
            ("docker://alpine", "docker://alpine"),
            ("oci:dir:tag", "oci:dir:tag"),
            ("s3://bucket/image", "s3://bucket/image"),
        ] {
            assert_eq!(read(image), uri);
        }
        for image in
            ["localhost:5000", "127.0.0.1:5000", "registry:localhost:5000", "docker://127.0.0.1:5000"]
        {
            assert!(read(image).contains("no repository"), "{image}: {}", read(image));
        }
        for image in ["/nowhere/image", "./nowhere", "../nowhere/image.tar"] {
            assert!(read(image).contains("a path needs a scheme"), "{image}: {}", read(image));
        }
    }
}
