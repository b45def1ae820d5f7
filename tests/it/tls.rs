//! TLS: what is spoken over it, and what becomes of peers that do not speak it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::broken_uploads::terminate;
use crate::harness::{adtally, run};
use crate::senders::{csv, curl};
use crate::service::{PATIENCE, Service};

/// The name that the certificates of the tests are for, beside the address.
pub(crate) const NAME: &str = "localhost";

/// A certificate that vouches for itself, and its key.
pub(crate) fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["127.0.0.1".to_owned(), NAME.to_owned()]).unwrap()
}

/// Writes both as PEM.
pub(crate) fn write_pair(pair: &CertifiedKey<KeyPair>, certificate: &Path, key: &Path) {
    std::fs::write(certificate, pair.cert.pem()).unwrap();
    std::fs::write(key, pair.signing_key.serialize_pem()).unwrap();
}

/// A server that speaks TLS, and its certificate, which is also in `cert.pem` of its directory.
pub(crate) fn start_with_tls(arguments: &[&str]) -> (Service, CertifiedKey<KeyPair>) {
    let mut service = Service::prepare(arguments);
    let pair = certificate();
    let (certificate, key) = (service.path("cert.pem"), service.path("key.pem"));
    write_pair(&pair, &certificate, &key);
    service.add_arguments(["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    service.launch();
    (service, pair)
}

fn client_config(
    trusted: &CertificateDer<'static>,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client of TLS that trusts one certificate.
pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// Begins a connection and its handshake, which goes on with the first bytes.
pub(crate) fn connect(service: &Service, trusted: &CertificateDer<'static>) -> Client {
    connect_with(service, client_config(trusted, &[], ALL_VERSIONS))
}

fn connect_with(service: &Service, config: Arc<ClientConfig>) -> Client {
    let stream = TcpStream::connect(service.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(config, ServerName::try_from(NAME).unwrap()).unwrap(), stream)
}

/// The first bytes of a handshake.
pub(crate) fn client_hello(trusted: &CertificateDer<'static>) -> Vec<u8> {
    let mut hello = Vec::new();
    let config = client_config(trusted, &[], ALL_VERSIONS);
    let mut client = ClientConnection::new(config, ServerName::try_from(NAME).unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Asks whether the server lives, as the last request of a connection, and gives the whole answer.
pub(crate) fn ask(client: &mut Client) -> std::io::Result<String> {
    write!(client, "GET /healthz HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // Without close_notify the end would be an error.
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn requests_over_every_version_with_and_without_an_agreement_on_the_protocol() {
    let (service, pair) = start_with_tls(&[]);
    for version in ALL_VERSIONS {
        for (offered, agreed) in [(&["http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
            let mut client = connect_with(&service, client_config(pair.cert.der(), offered, &[version]));
            let answer = ask(&mut client).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
            assert_eq!((client.conn.alpn_protocol(), client.conn.protocol_version()), (agreed, Some(version.version)));
        }
    }
    let versions: Vec<_> = ALL_VERSIONS.iter().map(|version| version.version).collect();
    assert_eq!(versions, [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2]);
    // Somebody else's certificate.
    let error = ask(&mut connect(&service, certificate().cert.der())).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn http_2_by_agreement() {
    let (service, pair) = start_with_tls(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = client_config(pair.cert.der(), &["h2", "http/1.1"], ALL_VERSIONS);
    let status = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(service.address()).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = ureq::http::Request::get(service.url("/healthz")).body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let status = response.await.unwrap().status();
        drop(requests);
        connection.await.unwrap().unwrap();
        status
    });
    assert_eq!(status, 200);
}

#[test]
fn curl_uploads_over_tls() {
    let (service, _) = start_with_tls(&[]);
    std::fs::write(service.path("data.csv"), csv(5000)).unwrap();
    let (file, trusted) = (service.path("data.csv"), service.path("cert.pem"));
    let (file, trusted) = (file.to_str().unwrap(), trusted.to_str().unwrap());
    let url = service.url("/v1/jobs/");
    for (flag, version) in [("--http1.1", "HTTP/1.1 201"), ("--http2", "HTTP/2 201")] {
        let arguments = [flag, "--cacert", trusted, "--dump-header", "-", "-T", file, &url];
        let Some(sent) = curl(&arguments, Stdio::null()) else { return };
        assert_eq!((sent.code, sent.status), (Some(0), 201), "{sent:?}");
        let (head, document) = sent.body.rsplit_once("\r\n\r\n").unwrap();
        assert!(head.contains(version), "{sent:?}");
        let job: serde_json::Value = serde_json::from_str(document).unwrap();
        assert_eq!(job["stats"]["rows_read"], 5000, "{job}");
    }
    // It trusts nobody but those it was told to. (A machine may have no certificates of its own, so it is given another one.)
    let other = service.path("other.pem");
    std::fs::write(&other, certificate().cert.pem()).unwrap();
    let arguments = ["--cacert", other.to_str().unwrap(), &service.url("/healthz")];
    let Some(refused) = curl(&arguments, Stdio::null()) else { return };
    assert_eq!(refused.code, Some(60), "{refused:?}");
}

#[test]
fn plain_http_is_told_that_the_port_speaks_tls() {
    let (service, pair) = start_with_tls(&[]);
    for request in ["GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut connection = service.connect();
        connection.send(request);
        let answer = String::from_utf8(connection.read_until_closed()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https:// for it\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    }
    // What is neither is no reason for an answer.
    let mut connection = service.connect();
    connection.send(b"\0\x01\x02 nonsense");
    assert!(!connection.read_rest().contains("HTTP"));
    assert!(ask(&mut connect(&service, pair.cert.der())).unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn handshakes_that_do_not_end_are_ended_and_do_not_keep_others_out() {
    let (service, pair) = start_with_tls(&["--header-timeout", "1s", "--max-connections", "2"]);
    let hello = client_hello(pair.cert.der());
    let beginnings = [&hello[..0], &hello[..3], &hello[..hello.len() / 2], &hello[..]];
    let silent: Vec<_> = beginnings
        .iter()
        .map(|beginning| {
            let mut connection = service.connect();
            connection.send(beginning);
            connection
        })
        .collect();
    assert!(ask(&mut connect(&service, pair.cert.der())).unwrap().starts_with("HTTP/1.1 200 "));
    for connection in silent {
        connection.read_rest();
    }
    // After the handshake the time goes on.
    let mut client = connect(&service, pair.cert.der());
    client.write_all(b"GET /heal").unwrap();
    let mut answer = Vec::new();
    let end = client.read_to_end(&mut answer);
    assert!(end.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::UnexpectedEof), "{end:?}");
}

#[test]
fn a_server_that_stops_ends_its_connections_in_order() {
    let (mut service, pair) = start_with_tls(&[]);
    let mut idle = connect(&service, pair.cert.der());
    write!(idle, "GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n\r\n").unwrap();
    let mut answer = vec![0; 15];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    let mut silent = service.connect();
    silent.send(b"\x16");
    terminate(&mut service);
    // With close_notify: without it this would be an error.
    idle.read_to_end(&mut answer).unwrap();
    assert_eq!(silent.read_rest(), "");
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
}

#[test]
fn health_is_checked_over_tls() {
    let (service, _) = start_with_tls(&[]);
    let other = service.path("other.pem");
    write_pair(&certificate(), &other, &service.path("other-key.pem"));
    let check = |address: &str, certificate: &Path| {
        let mut command = adtally();
        command.args(["healthcheck", "--listen", address, "--tls-cert"]).arg(certificate);
        run(&mut command, b"")
    };
    let right = service.path("cert.pem");
    let ready = check(service.address(), &right);
    assert_eq!((ready.code, &*ready.stdout, &*ready.stderr), (Some(0), "", ""), "{ready:?}");
    let mut command = adtally();
    command.arg("healthcheck").env("ADTALLY_LISTEN", service.address()).env("ADTALLY_TLS_CERT", &right);
    // The same environment as that of the server.
    command.env("ADTALLY_TLS_KEY", service.path("key.pem"));
    run(&mut command, b"").assert_done();
    check(service.address(), &other).assert_refused(&["has another certificate than", "other.pem"]);
    check(service.address(), &service.path("none.pem")).assert_refused(&["--tls-cert", "none.pem", "cannot be read"]);
    check(service.address(), &service.path("key.pem")).assert_refused(&["key.pem", "it has no certificate"]);
    // Without the certificate it does not speak TLS, and with it, it speaks nothing else.
    let mut command = adtally();
    run(command.args(["healthcheck", "--listen", service.address()]), b"").assert_refused(&["is not ready: 400"]);
    let plain = Service::start();
    check(plain.address(), &right).assert_refused(&[plain.address(), "does not answer"]);
}
