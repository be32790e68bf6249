//! TLS that cannot be trusted is an error, and never a reason to go on in the clear (hostile row 70).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use plyfold_conformance::samples;
use plyfold_conformance::server::FaultServer;
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry as _, reference};

use crate::front::{Authority, Front};
use crate::{assert_kind, open};

/// The answers of servers that know no TLS newer than 1.0, and of one that knows none at all.
const ANSWERS: [(&str, &[u8]); 3] = [
    ("an alert: protocol version", &[0x15, 3, 1, 0, 2, 2, 70]),
    ("a ServerHello of TLS 1.0", &HELLO),
    ("plain HTTP", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
];

/// A handshake record with a `ServerHello` (RFC 2246 7.4.1.3): version 3.1, no session, AES128-SHA.
const HELLO: [u8; 47] = {
    let mut hello = [7; 47];
    let head = [0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    [hello[43], hello[44], hello[45], hello[46]] = [0, 0, 0x2f, 0];
    hello
};

#[tokio::test]
async fn old_versions_are_errors_and_nothing_goes_in_the_clear() {
    for (what, answer) in ANSWERS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (sender, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).unwrap_or_default();
                // The test may be over.
                let _ = sender.send(bytes[..count].to_vec());
                let _ = stream.write_all(answer);
            }
        });
        let registry = open(&host, |config| config.https = vec![host.clone()]);
        let name = reference::parse(&format!("{host}/library/app:1.2")).unwrap();
        let error = assert_kind(registry.manifest(&name).await, &ErrorKind::Tls);
        assert!(error.hint().is_some(), "{what}: {error:?}");
        assert!(
            error.context("endpoint").is_some_and(|endpoint| endpoint.starts_with("https://")),
            "{error}"
        );
        let first = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(first[0], 0x16, "{what}: a TLS handshake, not {first:?}");
        let others: Vec<_> = heard.try_iter().collect();
        assert!(
            others.iter().all(|bytes| bytes.first().is_none_or(|byte| *byte == 0x16)),
            "{what}: {others:?}"
        );
    }
}

/// `object_store` asks for HTTP/2 of the reqwest that one program has for all of its crates, as the manifest of these tests does.
#[tokio::test]
async fn nothing_but_http_1_1_is_offered_and_spoken() {
    let (server, sample) = (FaultServer::start().unwrap(), samples::image());
    server.put("library/app", "1.2", &sample);
    let authority = Authority::new();
    let front = Front::start(&authority, "127.0.0.1", &server);
    let registry = open(&front.host, |config| {
        config.https = vec![front.host.clone()];
        config.ca = vec![authority.certificate()];
    });
    let name = reference::parse(&format!("{}/library/app:1.2", front.host)).unwrap();
    registry.manifest(&name).await.unwrap();
    let layer = &sample.images[0].layers[0].descriptor;
    let mut blob = registry.blob(&name, layer, BlobRange::FULL).await.unwrap();
    while blob.chunk().await.unwrap().is_some() {}
    let seen = front.seen();
    assert!(seen.len() >= 2, "{seen:?}");
    for request in seen {
        assert!(request.protocol.as_deref().is_none_or(|name| name == "http/1.1"), "{request:?}");
        assert!(request.head.lines().next().unwrap().ends_with(" HTTP/1.1"), "{request:?}");
        let head = request.head.to_ascii_lowercase();
        let encodings = head.lines().filter_map(|line| line.strip_prefix("accept-encoding:"));
        assert!(encodings.map(str::trim).all(|encoding| encoding == "identity"), "{request:?}");
    }
}

/// `.cargo/config.toml` builds aws-lc without it: the symbols are in a build without that variable.
#[test]
fn random_numbers_are_seeded_by_the_operating_system() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    // Joined here: as a constant it would be in the program, too.
    let has = |symbol: [&str; 2]| {
        let symbol = symbol.join("_");
        program.windows(symbol.len()).any(|part| part == symbol.as_bytes())
    };
    assert!(has(["aws_lc_0", ""]), "the names of aws-lc's functions are in the program");
    assert!(!has(["jent", "entropy"]), "aws-lc spends 30 ms of each process on the jitter of the CPU");
}
