//! A service that sends faster than its reader reads.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use plyfold_core::{BlobRange, CacheProvider as _, Descriptor, Options, digest};
use plyfold_object_store::{Config, ObjectStoreCache};

/// Of a blob. What fits into the buffers of the kernel is far less.
const SIZE: u64 = 1 << 30;

/// Of its content.
const ID: &str = "0123456789abcdef0123456789abcdef";

/// Answers each request as S3 does: the record of a blob, and the blob itself without an end that is ever reached.
fn serve(sent: &Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = sent.clone();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, sent) = (connection.unwrap(), sent.clone());
            thread::spawn(move || {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while connection.read(&mut byte).is_ok_and(|count| count == 1) {
                    request.push(byte[0]);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    request.clear();
                    let path = text.split(' ').nth(1).unwrap_or_default();
                    let head = |status: &str, length: u64| {
                        format!(
                            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"1\"\r\n\
                             Last-Modified: Tue, 01 Dec 2026 05:00:00 GMT\r\n\r\n"
                        )
                    };
                    let small = |body: &str| head("200 OK", body.len() as u64) + body;
                    let answer = match path {
                        _ if path.ends_with("plyfold.json") => small("{\"version\":1,\"token\":\"a\"}"),
                        _ if path.contains("/data/") => head("200 OK", SIZE),
                        _ if path.contains("/blobs/") => small(&format!(
                            "{{\"state\":\"live\",\"size\":{SIZE},\"data\":\"{ID}\",\"token\":\"a\"}}"
                        )),
                        _ => head("404 Not Found", 0),
                    };
                    if connection.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    let piece = vec![7; 1 << 20];
                    while path.contains("/data/") && connection.write_all(&piece).is_ok() {
                        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_stays_with_the_service() {
    let sent = Arc::new(AtomicU64::new(0));
    let options = [
        format!("endpoint=http://127.0.0.1:{}", serve(&sent)),
        "allow-http=true".to_owned(),
        "access-key-id=a".to_owned(),
        "secret-access-key=a".to_owned(),
        "read-only=true".to_owned(),
    ];
    let config: Config = Options::parse(options.iter().map(String::as_str)).unwrap().config().unwrap();
    let cache = ObjectStoreCache::open("s3://bucket/fleet", &config).await.unwrap();
    let blob =
        Descriptor::new("application/octet-stream".into(), SIZE, digest::sha256(b"it is never compared"));
    let mut reading = cache.open(&blob, BlobRange::FULL).await.unwrap().unverified();
    assert!(!reading.chunk().await.unwrap().unwrap().is_empty());
    // Until nothing has been sent for a while.
    let mut before = 0;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before > 0 && before <= 64 << 20, "{before} bytes were sent, and one piece was read");
    // It goes on when it is read.
    for _ in 0..1000 {
        reading.chunk().await.unwrap().unwrap();
    }
    assert!(sent.load(Ordering::SeqCst) > before);
}
