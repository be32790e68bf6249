//! The program's own client and plyfold's, one after the other.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use plyfold_conformance::samples;
use plyfold_conformance::server::FaultServer;

#[test]
fn a_program_with_a_client_of_its_own_works() {
    let (sample, registry) = (samples::image(), FaultServer::start().unwrap());
    registry.put("app", "1", &sample);
    let image = format!("registry:{}/app:1", registry.host());

    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", service.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut connection, _) = service.accept().unwrap();
        let mut request = [0; 1 << 12];
        let read = connection.read(&mut request).unwrap();
        assert!(request[..read].starts_with(b"GET /image "));
        let (length, end) = (image.len(), "connection: close");
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{end}\r\n\r\n{image}").unwrap();
    });

    // reqwest's client wants one CA of the system at least, also for plain HTTP.
    let ca = tempfile::NamedTempFile::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&ca, made.cert.pem()).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_example-with-reqwest"));
    let output = program.arg(url).env("SSL_CERT_FILE", ca.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), sample.top.digest().as_ref());
    answering.join().unwrap();
}
