//! How an image is named on the command line.

use std::path::Path;

use crate::{
    Backend, Backends, DiskSet, Error, Location, Reference, Result, printable, reference, shell, snapshot,
};

use super::path::{self, Written};

/// An image argument.
#[derive(Debug)]
pub(crate) enum Image {
    /// A name without a scheme: it is in a registry, Docker Hub if it does not say which, as it is for docker.
    Name(Reference),
    /// `scheme:rest`.
    Uri(String),
}

impl Image {
    /// What is read from.
    pub(crate) fn parse(image: &str, backends: &Backends) -> Result<Self> {
        Self::read(image, backends, false)
    }

    /// What is written to.
    pub(crate) fn target(image: &str, backends: &Backends) -> Result<Self> {
        let read = Self::read(image, backends, true)?;
        match Written::directory(image) {
            Some(path) if matches!(read, Self::Name(_)) => Err(path.or_name()),
            _ => Ok(read),
        }
    }

    /// A name without a scheme, also where a file or a directory is called so; `None` for what can only be a place.
    pub(crate) fn name(image: &str, backends: &Backends) -> Result<Option<Reference>> {
        if backends.knows(image) || Written::is_path(image) {
            return Ok(None);
        }
        path::refuse_foreign(image, true)?;
        if is_lone_host(image) { Err(no_repository(image)) } else { reference::parse(image).map(Some) }
    }

    fn read(image: &str, backends: &Backends, is_target: bool) -> Result<Self> {
        let of_path = if is_target { Written::target } else { Written::source };
        if let Ok(location) = Location::parse(image)
            && let Some(backend) = backends.of(image)
        {
            return match location.rest.as_str() {
                "" => Err(Error::config("the argument names a place, not an image")
                    .with_image(printable(image))
                    .with_hint(format!("write {}", backend.syntax))),
                host if is_registry(backend) && is_lone_host(host) => Err(no_repository(host)),
                _ => Ok(Self::Uri(image.to_owned())),
            };
        }
        path::refuse_foreign(image, is_target)?;
        if let Some(path) = Written::certain(image) {
            if !is_target && let Some((message, hint)) = of_disks(image) {
                let error = Error::config(format!("{message}, and not a layout of images"));
                return Err(error.with_image(printable(image)).with_hint(hint));
            }
            return of_path(&path).map(Self::Uri);
        }
        let path = Written::possible(image);
        if path.is_none() && image.strip_suffix('/').is_some_and(|host| !host.contains('/')) {
            return Ok(Self::Uri(format!("registry:{image}")));
        }
        match (reference::parse(image), path) {
            (Ok(_), Some(path)) => Err(path.or_name()),
            (Err(_), Some(path)) => of_path(&path).map(Self::Uri),
            (Ok(_), None) if is_lone_host(image) => Err(no_repository(image)),
            (Ok(name), None) => match of_disks(image).filter(|_| !is_target) {
                Some((message, hint)) => {
                    let error = Error::config(format!("{message} here, and may be a name"));
                    let hint = format!("write registry:{name} for the name; {hint}");
                    Err(error.with_image(printable(image)).with_hint(hint))
                }
                None => Ok(Self::Name(name)),
            },
            // For an unknown scheme the backends give the better error, which lists the schemes.
            (Err(_), None) if Location::parse(image).is_ok() => Ok(Self::Uri(image.to_owned())),
            (Err(e), None) => Err(e),
        }
    }

    /// Refuses a registry without a repository, where an image is needed.
    pub(crate) fn in_repository(self, backends: &Backends) -> Result<Self> {
        if let Self::Uri(uri) = &self
            && let Some(uri) = uri.strip_suffix('/')
            && self.is_remote(backends)
        {
            let place = uri.split_once(':').map_or(uri, |(_, rest)| rest);
            return Err(no_repository(place.trim_start_matches('/')));
        }
        Ok(self)
    }

    /// As a URI.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Name(name) => format!("registry:{}", name.whole()),
            Self::Uri(uri) => uri.clone(),
        }
    }

    /// As [`Images`](crate::Images) takes it.
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
            Self::Uri(uri) => backends.of(uri).is_some_and(is_registry),
        }
    }
}

/// What the directory of this name is, if `materialize` or `snapshot save` has made it, and what reads it.
fn of_disks(path: &str) -> Option<(&'static str, String)> {
    let directory = Path::new(path);
    let shown = shell::quoted(Path::new(path.trim_end_matches('/')));
    if directory.join("oci-layout").is_file() {
        return None;
    }
    if snapshot::is_in(directory) {
        let hint = format!(
            "`plyfold snapshot verify {shown}` reads it, `plyfold snapshot load {shown} --out DIR` makes its disks again"
        );
        return Some(("it is a directory with a snapshot", hint));
    }
    let hint = || format!("`plyfold inspect {shown}` shows them, `plyfold ls {shown}/FILE` reads one");
    DiskSet::is_in(directory).then(|| ("it is a directory with disks", hint()))
}

fn is_registry(backend: &Backend) -> bool {
    backend.schemes.contains(&"registry")
}

/// Whether this is a host with a port. Read as docker reads it, it is an image `host` of Docker Hub by a tag.
fn is_lone_host(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, port)| {
        let is_port = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
        is_port && !host.contains('/') && (host == "localhost" || host.contains('.'))
    })
}

fn no_repository(host: &str) -> Error {
    Error::config("the argument names a registry without a repository")
        .with_image(printable(host))
        .with_hint(format!("write {host}/REPOSITORY[:TAG]; `plyfold tags {host}/` lists the repositories"))
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
            assert!(read(image).contains("without a repository"), "{image}: {}", read(image));
        }
        for image in ["/nowhere/image", "./nowhere", "../nowhere/image.tar", "image.tar", "nowhere/"] {
            assert!(read(image).contains("there is no file or directory"), "{image}: {}", read(image));
        }
        for image in ["registry:", "docker://", "oci:"] {
            assert!(read(image).contains("names a place, not an image"), "{image}: {}", read(image));
        }
        // Tests run in the directory of this package.
        for (image, uri) in [("./src", "oci:./src"), ("src/:v1", "oci:src:v1")] {
            assert_eq!(read(image), uri);
        }
        assert!(read("src/lib.rs").contains("may be a name"), "{}", read("src/lib.rs"));
        // No name has capitals: it is a path, and that of no archive.
        for image in ["./Cargo.toml", "Cargo.toml"] {
            assert!(read(image).contains("neither an archive"), "{image}: {}", read(image));
        }
    }

    #[test]
    fn what_is_written_to_has_a_name() {
        let backends = Backends::linked().unwrap();
        let target = |image| {
            Image::target(image, &backends)
                .map_or_else(|e| e.hint().unwrap_or_default().to_owned(), |image| image.uri())
        };
        for (image, said) in [
            ("./big:v1", "oci:./big:v1"),
            ("./big", "write oci:./big:TAG, with a tag of your choice"),
            ("o.tar", "write oci-archive:o.tar:TAG, with a tag of your choice"),
            ("o.tar:v1", "oci-archive:o.tar:v1"),
            ("app:1", "registry:docker.io/library/app:1"),
        ] {
            assert_eq!(target(image), said);
        }
    }
}
