//! The files of TLS: refused when they cannot be used, read again when they change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rcgen::{CertifiedKey, KeyPair};

use crate::harness::{Run, Workspace, adtally, run, send_signal};
use crate::service::Service;
use crate::tls::{ask, certificate, connect, start_with_tls, write_pair};

/// What the log says of each successful reload.
const RELOADED: &str = "read again";

/// What the log says when what was read cannot be used.
const KEPT: &str = "what was read before stays in use";

fn serve(place: &Workspace, arguments: &[&str]) -> Run {
    let mut command = adtally();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(place.path("data")).args(arguments);
    run(&mut command, b"")
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start() {
    let place = Workspace::new();
    let (pair, other) = (certificate(), certificate());
    write_pair(&pair, &place.path("cert.pem"), &place.path("key.pem"));
    write_pair(&other, &place.path("other.pem"), &place.path("other-key.pem"));
    place.write("empty.pem", "");
    place.write("text.pem", "-----BEGIN CERTIFICATE-----\nno base64 at all!\n-----END CERTIFICATE-----\n");
    place.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    place.write("unknown-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    place.write("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    place.write("large.pem", "x".repeat(2 << 20));
    for (certificate, key, says) in [
        ("none.pem", "key.pem", &["none.pem: it cannot be read", "No such file"][..]),
        ("cert.pem", "none.pem", &["none.pem: it cannot be read"]),
        ("empty.pem", "key.pem", &["empty.pem: it has no certificate"]),
        ("key.pem", "cert.pem", &["key.pem: it has no certificate"]),
        ("cert.pem", "cert.pem", &["cert.pem: it has no private key"]),
        ("text.pem", "key.pem", &["text.pem: it is not PEM"]),
        ("damaged.pem", "key.pem", &["damaged.pem: its first certificate is damaged"]),
        ("cert.pem", "unknown-key.pem", &["unknown-key.pem: its key cannot be used", "ECDSA"]),
        ("cert.pem", "encrypted.pem", &["encrypted.pem: its key is encrypted"]),
        ("large.pem", "key.pem", &["large.pem: it has more than 1048576 bytes"]),
        ("cert.pem", "other-key.pem", &["other-key.pem: its key does not belong to the first certificate", "cert.pem"]),
    ] {
        let (certificate, key) = (place.path(certificate), place.path(key));
        let arguments = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        serve(&place, &arguments).assert_refused(says).assert_refused(&["--tls-cert, --tls-key: "]);
    }
    for arguments in [["--tls-cert", "cert.pem"], ["--tls-key", "key.pem"]] {
        serve(&place, &arguments).assert_misused("--tls-");
    }
}

/// Checks that connections that begin now are served with this certificate.
#[track_caller]
fn assert_has(service: &Service, pair: &CertifiedKey<KeyPair>) {
    let answer = ask(&mut connect(service, pair.cert.der())).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Puts a pair in the place of another one by renaming, as careful programs do.
fn replace(service: &Service, pair: &CertifiedKey<KeyPair>) {
    let (certificate, key) = (service.path("new-cert.pem"), service.path("new-key.pem"));
    write_pair(pair, &certificate, &key);
    fs::rename(key, service.path("key.pem")).unwrap();
    fs::rename(certificate, service.path("cert.pem")).unwrap();
}

#[test]
fn files_are_read_again_when_they_change_and_what_was_read_stays_when_they_cannot_be_used() {
    let (service, first) = start_with_tls(&[]);
    assert_has(&service, &first);
    let mut before = connect(&service, first.cert.der());
    before.conn.complete_io(&mut before.sock).unwrap();
    let second = certificate();
    replace(&service, &second);
    service.wait_for_log(RELOADED, 1);
    assert_has(&service, &second);
    assert!(ask(&mut connect(&service, first.cert.der())).is_err());
    // A connection that has begun goes on.
    assert!(ask(&mut before).unwrap().starts_with("HTTP/1.1 200 "));

    // The certificate of another key, as while only half has been replaced.
    let third = certificate();
    fs::write(service.path("cert.pem"), third.cert.pem()).unwrap();
    service.wait_for_log(KEPT, 1);
    assert!(service.log().contains("its key does not belong to the first certificate"), "{}", service.log());
    assert_has(&service, &second);
    fs::remove_file(service.path("key.pem")).unwrap();
    service.wait_for_log(KEPT, 2);
    assert!(service.log().contains("it cannot be read"), "{}", service.log());
    assert_has(&service, &second);
    fs::write(service.path("key.pem"), third.signing_key.serialize_pem()).unwrap();
    service.wait_for_log(RELOADED, 2);
    assert_has(&service, &third);
}

#[test]
fn files_are_read_again_on_sighup() {
    let (mut service, first) = start_with_tls(&[]);
    send_signal("HUP", service.process().id());
    service.wait_for_log(RELOADED, 1);
    assert_has(&service, &first);
    // Without anything to read it is harmless.
    let mut plain = Service::start();
    send_signal("HUP", plain.process().id());
    assert_eq!(plain.get("/healthz").status, 200);
}

/// Makes a directory with a pair, and points a link at it in one step.
fn publish(directory: &Path, version: &str, pair: &CertifiedKey<KeyPair>) {
    let files = directory.join(version);
    fs::create_dir_all(&files).unwrap();
    write_pair(pair, &files.join("tls.crt"), &files.join("tls.key"));
    symlink(version, directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

#[test]
fn files_behind_links_are_followed_as_kubernetes_replaces_them() {
    let mut service = Service::prepare(&[]);
    let directory = service.path("secret");
    let (first, second) = (certificate(), certificate());
    publish(&directory, "..1", &first);
    let paths = ["tls.crt", "tls.key"].map(|name| {
        symlink(format!("..data/{name}"), directory.join(name)).unwrap();
        directory.join(name).to_str().unwrap().to_owned()
    });
    service.add_arguments(["--tls-cert", &paths[0], "--tls-key", &paths[1]]);
    service.launch();
    assert_has(&service, &first);
    publish(&directory, "..2", &second);
    fs::remove_dir_all(directory.join("..1")).unwrap();
    service.wait_for_log(RELOADED, 1);
    assert_has(&service, &second);
}
