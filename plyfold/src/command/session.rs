//! What the verbs about images share: the store, the options, and how an image is named.

use std::path::{Path, PathBuf};

use plyfold::progress::Progress;
use plyfold::{
    Backends, Error, Images, Location, Materializer, Opened, Options, Platform, PullOptions, PullPolicy,
    PulledImage, Reference, Result, printable, reference,
};

use super::args::Global;
use super::progress::Reporter;
use super::screen::Screen;

/// An open store, and how to talk about it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) images: Images,
    pub(crate) platform: Platform,
    /// The platform that the user asked for, if any.
    pub(crate) only: Option<Platform>,
    pub(crate) screen: Screen,
}

/// How one image is brought here.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    pub(crate) policy: PullPolicy,
    pub(crate) force: bool,
    pub(crate) verify: bool,
    pub(crate) materializer: Option<Box<dyn Materializer>>,
}

impl Session {
    pub(crate) async fn open(global: Global, screen: Screen) -> Result<Self> {
        let store = match global.store {
            Some(store) => store,
            None => default_store()?,
        };
        let options = Options::parse(global.option.iter().map(String::as_str))?;
        let images = Images::open(store).await?.with_options(options);
        let only = global.platform;
        Ok(Self { images, platform: only.clone().unwrap_or_default(), only, screen })
    }

    /// Brings an image here, and tells about it meanwhile.
    pub(crate) async fn pull(&self, image: &str, fetch: Fetch) -> Result<PulledImage> {
        let image = self.uri(image)?;
        self.telling(|progress| {
            let options = PullOptions {
                force: fetch.force,
                materializer: fetch.materializer,
                platform: self.platform.clone(),
                policy: fetch.policy,
                progress,
                verify: fetch.verify,
                ..PullOptions::default()
            };
            self.images.pull(&image, options)
        })
        .await
    }

    /// Runs work that tells events, and shows them until the last one.
    pub(crate) async fn telling<T, F>(&self, work: impl FnOnce(Progress) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (progress, mut events) = Progress::channel();
        let mut reporter = Reporter::new(self.screen);
        let report = async {
            while let Some(event) = events.next().await {
                reporter.tell(event);
            }
        };
        // The work drops its end of the channel, and so ends the report.
        let work = work(progress);
        let (outcome, ()) = tokio::join!(work, report);
        outcome
    }

    /// Opens the backend that an image is in.
    pub(crate) async fn locate(&self, image: &str) -> Result<Opened> {
        self.images.locate(&self.uri(image)?).await
    }

    /// The name that an image has in the store.
    pub(crate) async fn name(&self, image: &str) -> Result<Reference> {
        self.images.name(&self.uri(image)?).await
    }

    /// An image as the library takes it: a bare name means Docker Hub, as it does to docker.
    fn uri(&self, image: &str) -> Result<String> {
        uri(image, self.images.backends())
    }
}

fn uri(image: &str, backends: &Backends) -> Result<String> {
    if backends.knows(image) {
        return Ok(image.to_owned());
    }
    if let Some(path) = path_in(image) {
        let error = Error::config(format!("{} is a path here, and may be a name", path.display()));
        let scheme = if path.is_dir() { "oci" } else { "docker-archive" };
        return Err(error
            .with_image(printable(image))
            .with_hint(format!("write {scheme}:{image} for the path, or registry:{image} for the name")));
    }
    match reference::parse(image) {
        Ok(name) => Ok(name.whole()),
        // With a scheme that nobody knows the better error is that of the backends, which lists them.
        Err(_) if Location::parse(image).is_ok() => Ok(image.to_owned()),
        Err(e) => Err(e),
    }
}

/// An image at the path that a bare name begins with: a file, or a layout directory.
fn path_in(image: &str) -> Option<&Path> {
    let whole = Path::new(image);
    let before_tag = image.rsplit_once(':').map(|(path, _)| Path::new(path));
    let holds_image = |path: &&Path| path.is_file() || path.join("oci-layout").is_file();
    [Some(whole), before_tag].into_iter().flatten().find(holds_image)
}

fn default_store() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    let missing = || Error::config("no place for the store is known").with_hint("give one by --store DIR");
    Ok(data.ok_or_else(missing)?.join("plyfold"))
}
