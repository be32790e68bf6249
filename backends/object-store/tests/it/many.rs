//! A hundred thousand names: a listing by pages takes no more memory than one of a few. A process of its own is measured.

use std::env;
use std::fmt;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use plyfold_core::{CacheProvider as _, Page};
use plyfold_object_store::{Config, ObjectStoreCache};

use crate::objects::PREFIX;

/// What a case runs as, in the process that is measured: the number of names.
const CASE: &str = "PLYFOLD_MEMORY_CASE";
const FEW: u64 = 5_000;
const MANY: u64 = 100_000;
/// Of a page.
const LIMIT: usize = 500;
/// A name and its descriptor take more than ten times this: what is kept of each would be seen.
const BYTES_OF_EACH: u64 = 16;

/// A service whose names are made while they are read.
#[derive(Debug)]
struct Names {
    count: u64,
    rest: InMemory,
}

impl Names {
    fn name(number: u64) -> String {
        format!("a.example/some/repository/of/a/fleet/{:03}:{number:07}", number / 1000)
    }

    fn body(number: u64) -> Bytes {
        let digest = plyfold_core::digest::sha256(&number.to_le_bytes());
        let descriptor = format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1234}}"#
        );
        let name = Self::name(number);
        format!(r#"{{"name":"{name}","image":{{"descriptor":{descriptor}}},"token":"t"}}"#).into()
    }

    fn number(path: &Path) -> Option<u64> {
        path.as_ref().strip_prefix(PREFIX)?.strip_prefix("/names/")?.rsplit_once(':')?.1.parse().ok()
    }
}

#[async_trait]
impl ObjectStore for Names {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.rest.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.rest.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(number) = Self::number(location) else { return self.rest.get_opts(location, options).await };
        let one = InMemory::new();
        one.put(location, Self::body(number).into()).await?;
        one.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.rest.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_with_offset(prefix, &Path::default())
    }

    fn list_with_offset(&self, _: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let first = Self::number(offset).map_or(0, |last| last + 1);
        // All of them are of one size.
        let size = Self::body(0).len() as u64;
        let objects = stream::iter(first..self.count).map(move |number| {
            let location = Path::parse(format!("{PREFIX}/names/{}", Self::name(number)))?;
            Ok(ObjectMeta {
                location,
                last_modified: std::time::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            })
        });
        objects.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.rest.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.rest.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names", self.count)
    }
}

/// Lists all names by pages; how many there were.
async fn listed(count: u64) -> u64 {
    let store = Arc::new(Names { count, rest: InMemory::new() });
    let cache = ObjectStoreCache::on(store, &PREFIX.into(), "test:many", &Config::default()).await.unwrap();
    let (mut found, mut page) = (0, Page { limit: Some(LIMIT), ..Page::default() });
    loop {
        let names = cache.list_page(&page).await.unwrap();
        found += names.names.len() as u64;
        page.after = names.next;
        if page.after.is_none() {
            return found;
        }
    }
}

/// The peak of this test as a process that lists so many names, in bytes.
fn peak(count: u64) -> u64 {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "many::a_hundred_thousand_names_are_listed_in_constant_memory", "--nocapture"]);
    let run = command.env(CASE, count.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said} {}", String::from_utf8_lossy(&run.stderr));
    let peak = said.split("peak: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    peak.unwrap_or_else(|| panic!("{said}")).parse::<u64>().unwrap() * 1024
}

#[test]
fn a_hundred_thousand_names_are_listed_in_constant_memory() {
    if let Ok(count) = env::var(CASE) {
        let count = count.parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(listed(count)), count);
        // `VmHWM` of `proc(5)`.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        return std::io::stdout().write_all(format!("\npeak: {}\n", line.trim()).as_bytes()).unwrap();
    }
    let [few, many] = [FEW, MANY].map(peak);
    let each = many.saturating_sub(few) / (MANY - FEW);
    assert!(each <= BYTES_OF_EACH, "{few} bytes for {FEW} names, {many} for {MANY}: {each} for each");
}
