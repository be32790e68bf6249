//! Requests of S3, answered by objects in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
    UpdateVersion,
};

use super::http::{Request, Response};

/// Parts of uploads by their numbers, by the names of the uploads.
pub(super) type Uploads = Mutex<HashMap<String, BTreeMap<u32, Bytes>>>;

pub(super) async fn answer(store: &InMemory, uploads: &Uploads, skew: i64, request: &Request) -> Response {
    let path = Path::parse(&request.key).unwrap();
    let upload = request.query("uploadId");
    match (request.method.as_str(), upload) {
        ("GET", None) if request.key.is_empty() => list(store, skew, request).await,
        ("GET" | "HEAD", _) => read(store, skew, &path, request).await,
        ("PUT", None) => put(store, &path, request).await,
        ("PUT", Some(id)) => {
            let number: u32 = request.query("partNumber").unwrap().parse().unwrap();
            match uploads.lock().unwrap().get_mut(id) {
                Some(parts) => {
                    parts.insert(number, request.body.clone());
                    Response::new(200, "").with("etag", format!("\"part-{number}\""))
                }
                None => Response::failed(404, "NoSuchUpload"),
            }
        }
        ("POST", Some(id)) => {
            let parts = uploads.lock().unwrap().remove(id);
            let Some(parts) = parts else { return Response::failed(404, "NoSuchUpload") };
            let content: Vec<&[u8]> = parts.values().map(|part| &**part).collect();
            let put = store.put(&path, content.concat().into()).await.unwrap();
            let e_tag = put.e_tag.unwrap();
            let body = format!(
                "<CompleteMultipartUploadResult><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
            );
            Response::new(200, body)
        }
        ("POST", None) if request.key.is_empty() => {
            let body = String::from_utf8_lossy(&request.body);
            let mut deleted = String::from("<DeleteResult>");
            for key in body.split("<Key>").skip(1) {
                let key = key.split('<').next().unwrap_or_default();
                store.delete(&Path::parse(key).unwrap()).await.unwrap();
                write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
            }
            Response::new(200, deleted + "</DeleteResult>")
        }
        ("POST", None) => {
            let id = uuid::Uuid::new_v4().to_string();
            uploads.lock().unwrap().insert(id.clone(), BTreeMap::new());
            let body = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            Response::new(200, body)
        }
        ("DELETE", id) => {
            match id {
                Some(id) => drop(uploads.lock().unwrap().remove(id)),
                None => store.delete(&path).await.unwrap(),
            }
            Response::new(204, "")
        }
        _ => Response::failed(405, "MethodNotAllowed"),
    }
}

async fn put(store: &InMemory, path: &Path, request: &Request) -> Response {
    let mode = match (request.header("if-none-match"), request.header("if-match")) {
        (Some(_), _) => PutMode::Create,
        (None, Some(e_tag)) => {
            PutMode::Update(UpdateVersion { e_tag: Some(e_tag.to_owned()), version: None })
        }
        (None, None) => PutMode::Overwrite,
    };
    match store.put_opts(path, request.body.clone().into(), PutOptions::from(mode)).await {
        Ok(put) => Response::new(200, "").with("etag", put.e_tag.unwrap()),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            Response::failed(412, "PreconditionFailed")
        }
        Err(e) => panic!("{e}"),
    }
}

async fn read(store: &InMemory, skew: i64, path: &Path, request: &Request) -> Response {
    let range = request.header("range").map(|range| {
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        GetRange::Bounded(start.parse().unwrap()..end.parse::<u64>().unwrap() + 1)
    });
    let is_part = range.is_some();
    let found = match store.get_opts(path, GetOptions { range, ..GetOptions::default() }).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Response::failed(404, "NoSuchKey"),
        Err(_) => return Response::failed(416, "InvalidRange"),
    };
    let (meta, range) = (found.meta.clone(), found.range.clone());
    let answer = Response::new(if is_part { 206 } else { 200 }, found.bytes().await.unwrap());
    let answer = answer
        .with("etag", meta.e_tag.unwrap())
        .with("last-modified", http_date(meta.last_modified.into(), skew));
    if is_part {
        return answer
            .with("content-range", format!("bytes {}-{}/{}", range.start, range.end - 1, meta.size));
    }
    answer
}

async fn list(store: &InMemory, skew: i64, request: &Request) -> Response {
    // The prefix ends in `/`, and the store takes folders.
    let prefix = Path::parse(request.query("prefix").unwrap_or_default()).unwrap();
    let after =
        request.query("continuation-token").or_else(|| request.query("start-after")).unwrap_or_default();
    let most = request.query("max-keys").map_or(1000, |most| most.parse().unwrap());
    let objects = store.list_with_offset(Some(&prefix), &Path::parse(after).unwrap());
    let mut objects: Vec<ObjectMeta> = objects.take(most + 1).try_collect().await.unwrap();
    let is_truncated = objects.len() > most;
    objects.truncate(most);
    let mut body = format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>");
    for ObjectMeta { location, last_modified, size, e_tag, .. } in &objects {
        let date = shifted((*last_modified).into(), skew);
        let seconds = date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let (key, e_tag) = (location.as_ref(), e_tag.as_deref().unwrap_or_default());
        write!(
            body,
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{e_tag}</ETag><LastModified>{}</LastModified></Contents>",
            rfc3339(seconds)
        )
        .unwrap();
    }
    if let Some(last) = objects.last().filter(|_| is_truncated) {
        write!(body, "<NextContinuationToken>{}</NextContinuationToken>", last.location).unwrap();
    }
    Response::new(200, body + "</ListBucketResult>")
}

fn shifted(time: SystemTime, skew: i64) -> SystemTime {
    let by = Duration::from_secs(skew.unsigned_abs());
    if skew < 0 { time - by } else { time + by }
}

fn http_date(time: SystemTime, skew: i64) -> String {
    httpdate::fmt_http_date(shifted(time, skew))
}

/// Seconds since 1970 as RFC 3339 has them: the same fields as in a date of HTTP, in another order.
fn rfc3339(seconds: u64) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mut words = date.split(' ').skip(1);
    let mut next = || words.next().unwrap();
    let (day, month, year, time) = (next(), next(), next(), next());
    format!("{year}-{:02}-{day}T{time}.000Z", MONTHS.find(month).unwrap() / 3 + 1)
}
