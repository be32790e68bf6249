//! Images over a cache that is no directory.

use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use plyfold::memory::MemoryCache;
use plyfold::{
    CacheProvider as _, CacheProviderExt as _, Collect, ErrorKind, FlatOptions, Images, LoadOptions, Page,
    Platform, PullOptions, Rootfs, Verify,
};
use plyfold_conformance::samples;
use tokio::io::AsyncReadExt as _;

use super::baseline;

fn options() -> PullOptions {
    PullOptions { platform: platform(), ..PullOptions::default() }
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn sample() -> String {
    format!("oci:{}:latest", baseline::root().join("examples/sample").display())
}

/// Bytes of all blobs in a layout.
fn blobs(layout: &Path) -> u64 {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_pulled_image_is_a_layout_while_it_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let cache = MemoryCache::new().unwrap();
    let images = Images::with_cache(cache.clone()).unwrap().with_scratch(dir.path().join("scratch"));
    let image = images.pull(&sample(), options()).await.unwrap();
    assert_eq!(image.path, dir.path().join("scratch/layout"));
    assert!(image.path.join("oci-layout").is_file());
    // Any reader of layouts finds the image there, by its name.
    let (store, other) =
        (Images::open(&image.path).await.unwrap(), Images::open(dir.path().join("other")).await);
    assert!(store.is_cached(&image.reference, &platform()).await.unwrap());
    let uri = format!("oci:{}:{}", image.path.display(), image.reference);
    assert_eq!(other.unwrap().pull(&uri, options()).await.unwrap().digest, image.digest);
    // Its name is gone from the cache, and the image stays while it is held.
    assert!(images.remove(&image.reference).await.unwrap());
    assert_eq!(images.collect(&Collect::default()).await.unwrap().blobs, []);
    assert!(store.cache().verify_blob(&image.layers[0].descriptor).await.is_ok());
    drop(image);
    assert!(
        !images.collect(&Collect { dry_run: true, ..Collect::default() }).await.unwrap().blobs.is_empty()
    );
    assert!(blobs(store.cache().layout().unwrap()) > 0, "a dry run removes nothing");
    assert!(!images.collect(&Collect::default()).await.unwrap().blobs.is_empty());
    assert_eq!(blobs(store.cache().layout().unwrap()), 0);
    assert_eq!(cache.usage().await.unwrap().blobs, 0);
}

#[tokio::test]
async fn disks_tars_and_archives_are_made_of_any_cache() {
    let dir = tempfile::tempdir().unwrap();
    let of_a_store = Images::open(dir.path().join("store")).await.unwrap();
    let of_memory = Images::with_cache(MemoryCache::new().unwrap()).unwrap();
    let archive = dir.path().join("images.tar");
    let names = ["a.example/app:1", "a.example/app:2", "a.example/app:3"];
    let image = samples::image();
    fs::write(&archive, samples::docker_archive(&names.map(|name| (name.to_owned(), &image)))).unwrap();
    let mut made = Vec::new();
    for (place, images) in [("store-out", &of_a_store), ("memory-out", &of_memory)] {
        let loaded = images
            .load(&format!("docker-archive:{}", archive.display()), LoadOptions::default())
            .await
            .unwrap();
        assert_eq!(loaded.iter().map(|image| image.reference.whole()).collect::<Vec<_>>(), names);
        let first = images.list_page(&Page { limit: Some(2), after: None }).await.unwrap();
        let rest = images.list_page(&Page { limit: Some(2), after: first.next }).await.unwrap();
        assert_eq!((first.names.len(), rest.names.len(), rest.next), (2, 1, None));
        let image = images.pull(&sample(), options()).await.unwrap();
        let rootfs = Rootfs::vmdk().upper(1 << 26);
        let disks = images.materialize(&image, &rootfs, &dir.path().join(place)).await.unwrap();
        let files: Vec<Vec<u8>> = disks.paths().map(|file| fs::read(file).unwrap()).collect();
        let mut tar = Vec::new();
        images.export(&image, &FlatOptions::default()).await.unwrap().read_to_end(&mut tar).await.unwrap();
        assert_eq!(images.verify(&Verify::default()).await.unwrap().damage, []);
        made.push((files, tar));
    }
    assert!(made[0] == made[1], "the cache has no part in what is made");
    assert!(made[0].0.len() >= 4 && !made[0].1.is_empty());
}

/// A stream that gives a few bytes at a time, and then an error if it has one.
struct Slow {
    content: std::io::Cursor<Vec<u8>>,
    error: bool,
    waits: bool,
}

impl tokio::io::AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = [0; 999];
        let wanted = part.len().min(buffer.remaining());
        let count = std::io::Read::read(&mut self.content, &mut part[..wanted])?;
        if count == 0 && self.error {
            return Poll::Ready(Err(std::io::Error::other("the peer is gone")));
        }
        buffer.put_slice(&part[..count]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_archive_is_loaded_from_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let layer = samples::LayerBuilder::new().file("big", 0o644, &vec![7; 3 << 20]).finish();
    let image = samples::of_layers("streamed", &[layer]);
    let archive = samples::docker_archive(&[("a.example/app:1".to_owned(), &image)]);
    assert!(archive.len() > 2 << 20, "more than one part");
    let scratch = dir.path().join("scratch");
    for images in [
        Images::open(dir.path().join("store")).await.unwrap(),
        Images::with_cache(MemoryCache::new().unwrap()).unwrap().with_scratch(&scratch),
    ] {
        let content = std::io::Cursor::new(archive.clone());
        let stream = Slow { content, error: false, waits: false };
        let loaded = images.load_from(stream, LoadOptions::default()).await.unwrap();
        assert_eq!(loaded[0].reference.whole(), "a.example/app:1");
        assert!(images.is_cached(&loaded[0].reference, &platform()).await.unwrap());
        // What ends too early is no image, whether the stream says so or not.
        for error in [true, false] {
            let content = std::io::Cursor::new(archive[..archive.len() / 2].to_vec());
            let failed = images
                .load_from(Slow { content, error, waits: false }, LoadOptions::default())
                .await
                .unwrap_err();
            let kind = if error { ErrorKind::Io } else { ErrorKind::Corrupt };
            assert_eq!(*failed.kind(), kind, "{failed}");
        }
    }
    let left: Vec<_> = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["layout"], "nothing but the layout of what is held");
}

#[tokio::test]
async fn an_archive_is_loaded_from_a_pipe_and_from_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let layer = samples::LayerBuilder::new().file("big", 0o644, &vec![7; 3 << 20]).finish();
    let image = samples::of_layers("streamed", &[layer]);
    let archive = samples::docker_archive(&[("a.example/app:1".to_owned(), &image)]);
    // Writes all of it, or a half, and closes its end.
    let written = |mut to: Box<dyn std::io::Write + Send>, part: usize| {
        let archive = archive[..part].to_vec();
        std::thread::spawn(move || to.write_all(&archive))
    };
    for part in [archive.len(), archive.len() / 2] {
        for is_pipe in [true, false] {
            let images = Images::open(dir.path().join(format!("{part}-{is_pipe}"))).await.unwrap();
            let (outcome, writer) = if is_pipe {
                let (reader, writer) = std::io::pipe().unwrap();
                let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).unwrap();
                let writer = written(Box::new(writer), part);
                (images.load_from(reader, LoadOptions::default()).await, writer)
            } else {
                let (writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
                reader.set_nonblocking(true).unwrap();
                let reader = tokio::net::UnixStream::from_std(reader).unwrap();
                let writer = written(Box::new(writer), part);
                (images.load_from(reader, LoadOptions::default()).await, writer)
            };
            writer.join().unwrap().unwrap();
            let names = images.list_cached().await.unwrap();
            if part == archive.len() {
                assert_eq!(outcome.unwrap()[0].reference.whole(), "a.example/app:1");
                assert!(images.is_cached(&names[0].0, &platform()).await.unwrap());
            } else {
                assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Corrupt);
                assert_eq!(names, []);
            }
        }
    }
}
