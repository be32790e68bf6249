//! The fault server: honest to raw requests and to skopeo, and broken in the way each fault says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options, Served};

/// One request on its own connection: the whole answer as the wire had it.
fn exchange(server: &FaultServer, method: &str, target: &str, headers: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server.host())?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")?;
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status, lower-case head, body.
fn get(server: &FaultServer, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let answer = exchange(server, "GET", target, headers).unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, head, answer.get(split + 4..).unwrap_or_default().to_vec())
}

fn stocked(options: Options) -> (FaultServer, samples::Sample, String) {
    let server = FaultServer::with(options).unwrap();
    let sample = samples::image();
    server.put("library/app", "1.2", &sample);
    let blob = format!("/v2/library/app/blobs/{}", sample.images[0].layers[0].descriptor.digest());
    (server, sample, blob)
}

#[test]
fn manifests_and_blobs_are_served_as_stored() {
    let (server, sample, blob) = stocked(Options::default());
    let (status, head, body) = get(&server, "/v2/library/app/manifests/1.2", "");
    assert_eq!((status, &body[..]), (200, &sample.top_bytes()[..]));
    assert!(head.contains(&format!("docker-content-digest: {}", sample.top.digest())));
    assert!(head.contains("content-type: application/vnd.oci.image.manifest.v1+json"));

    let layer = &sample.images[0].layers[0].descriptor;
    assert_eq!(get(&server, &blob, "").2, sample.blob(layer.digest()).unwrap()[..]);
    assert_eq!(server.served(layer.digest()), Served { requests: 1, bytes: layer.size() });
    assert_eq!(get(&server, "/v2/library/app/manifests/none", "").0, 404);
    assert_eq!(get(&server, "/v2/other/manifests/1.2", "").0, 404);
}

#[test]
fn ranges_are_closed_and_checked() {
    let (server, sample, blob) = stocked(Options::default());
    let layer = &sample.images[0].layers[0].descriptor;
    let (status, head, body) = get(&server, &blob, "Range: bytes=10-19\r\n");
    assert_eq!((status, &body[..]), (206, &sample.blob(layer.digest()).unwrap()[10..20]));
    assert!(head.contains(&format!("content-range: bytes 10-19/{}", layer.size())));
    let beyond = format!("Range: bytes={}-\r\n", layer.size());
    assert_eq!(get(&server, &blob, &beyond).0, 416);
}

#[test]
fn faults_do_what_they_say() {
    let (server, sample, blob) = stocked(Options::default());
    let whole = sample.blob(sample.images[0].layers[0].descriptor.digest()).unwrap();
    let broken = |fault: Fault, headers: &str| {
        server.clear_scripts();
        server.script(On::blobs().times(1), [fault]);
        let broken = get(&server, &blob, headers);
        // The script is used up: the next answer is honest.
        assert_eq!(get(&server, &blob, "").2, whole[..]);
        broken
    };
    assert_eq!(broken(Fault::TruncateAt(7), "").2, &whole[..7]);
    assert_eq!(broken(Fault::Status(503), "").0, 503);
    assert_eq!(broken(Fault::Close, "").0, 0);
    assert_eq!(broken(Fault::Flip(3), "").2[3], whole[3] ^ 0xff);
    assert_eq!(broken(Fault::IgnoreRange, "Range: bytes=5-6\r\n").0, 200);
    assert!(broken(Fault::WrongRange(1), "Range: bytes=5-6\r\n").1.contains("bytes 6-7/"));
    assert!(broken(Fault::WrongTotal(9), "Range: bytes=5-6\r\n").1.contains("bytes 5-6/9"));
    assert!(broken(Fault::Http10, "").1.starts_with("http/1.0"));
    assert!(broken(Fault::Chunked, "").1.contains("transfer-encoding: chunked"));
    assert!(broken(Fault::Surplus(10), "").2.len() > whole.len() + 10);
    assert!(broken(Fault::GzipEncoded, "").1.contains("content-encoding: gzip"));
    assert!(broken(Fault::Redirect(307, "/elsewhere".into()), "").1.contains("location: /elsewhere"));
    assert!(broken(Fault::Header("Retry-After", Some("3".into())), "").1.contains("retry-after: 3"));
    assert!(!broken(Fault::Header("docker-content-digest", None), "").1.contains("docker-content-digest"));
}

#[test]
fn a_reset_is_an_error_and_a_stall_ends_with_the_server() {
    let (server, _, blob) = stocked(Options::default());
    server.script(On::blobs().times(1), [Fault::ResetAt(100)]);
    let error = exchange(&server, "GET", &blob, "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    server.script(On::blobs(), [Fault::StallAt(100)]);
    let mut stream = TcpStream::connect(server.host()).unwrap();
    write!(stream, "GET {blob} HTTP/1.1\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut some = Vec::new();
    let error = stream.read_to_end(&mut some).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(server);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.read_to_end(&mut some).unwrap();
}

#[test]
fn endless_bodies_end_with_the_client() {
    let (server, _, blob) = stocked(Options::default());
    server.script(On::blobs(), [Fault::Endless]);
    let mut stream = TcpStream::connect(server.host()).unwrap();
    write!(stream, "GET {blob} HTTP/1.1\r\n\r\n").unwrap();
    let mut much = vec![0; 1 << 20];
    stream.read_exact(&mut much).unwrap();
}

#[test]
fn listings_are_paged_by_link() {
    let (server, sample, _) = stocked(Options { page: 2, ..Options::default() });
    for tag in ["a", "b", "c"] {
        server.tag("library/app", tag, sample.top.digest());
    }
    let (_, head, body) = get(&server, "/v2/library/app/tags/list", "");
    assert_eq!(String::from_utf8(body).unwrap(), r#"{"name":"library/app","tags":["1.2","a"]}"#);
    assert!(head.contains(r#"link: </v2/library/app/tags/list?last=a&n=2>; rel="next""#));
    let (_, head, body) = get(&server, "/v2/library/app/tags/list?last=a&n=2", "");
    assert_eq!(String::from_utf8(body).unwrap(), r#"{"name":"library/app","tags":["b","c"]}"#);
    assert!(!head.contains("link:"));
    assert_eq!(
        String::from_utf8(get(&server, "/v2/_catalog", "").2).unwrap(),
        r#"{"repositories":["library/app"]}"#
    );
}

#[test]
fn referrers_by_api_and_by_fallback_tag_are_one_list() {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().unwrap().manifest.digest().to_string();
    let with_api = FaultServer::start().unwrap();
    with_api.put("r", "t", &sample);
    let (status, _, by_api) = get(&with_api, &format!("/v2/r/referrers/{subject}"), "");
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&by_api).contains(sample.top.digest().as_ref()));
    let none = get(&with_api, &format!("/v2/r/referrers/{subject}?artifactType=other"), "");
    assert!(none.1.contains("oci-filters-applied: artifacttype"));
    assert!(!String::from_utf8_lossy(&none.2).contains(sample.top.digest().as_ref()));

    let without = FaultServer::with(Options { referrers: false, ..Options::default() }).unwrap();
    without.put("r", "t", &sample);
    assert_eq!(get(&without, &format!("/v2/r/referrers/{subject}"), "").0, 404);
    let by_tag = get(&without, &format!("/v2/r/manifests/{}", subject.replace(':', "-")), "").2;
    assert_eq!(by_tag, by_api);
}

#[test]
fn basic_and_bearer_are_asked_for_and_checked() {
    let login = Login::new("user", "secret");
    let basic = "Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
    let (server, _, blob) = stocked(Options { auth: Auth::Basic(login.clone()), ..Options::default() });
    assert_eq!(get(&server, &blob, "").0, 401);
    assert_eq!(get(&server, &blob, basic).0, 200);

    server.configure(|options| {
        options.auth =
            Auth::Bearer { login: Some(login.clone()), ttl: Duration::from_secs(300), realm: None };
    });
    let (status, head, _) = get(&server, &blob, "");
    assert_eq!(status, 401);
    assert!(head.contains(r#"scope="repository:library/app:pull""#), "{head}");
    assert_eq!(get(&server, "/token", "").0, 401);
    let answer = String::from_utf8(get(&server, "/token", basic).2).unwrap();
    assert!(answer.contains(r#""token":"token-1""#));
    let bearer = "Authorization: Bearer token-1\r\n";
    assert_eq!(get(&server, &blob, bearer).0, 200);
    // One that has expired when it is given out.
    server.configure(|options| {
        options.auth = Auth::Bearer { login: Some(login), ttl: Duration::ZERO, realm: None };
    });
    get(&server, "/token", basic);
    let bearer = "Authorization: Bearer token-2\r\n";
    assert_eq!(get(&server, &blob, bearer).0, 401);
}

#[test]
fn switched_off_abilities_answer_405() {
    let (server, _, blob) = stocked(Options { head: false, push: false, ..Options::default() });
    let head = exchange(&server, "HEAD", &blob, "").unwrap();
    assert!(head.starts_with(b"HTTP/1.1 405"));
    let post = exchange(&server, "POST", "/v2/library/app/blobs/uploads/", "").unwrap();
    assert!(post.starts_with(b"HTTP/1.1 405"));
}
