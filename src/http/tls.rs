//! TLS: certificates and keys from files, and handshakes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Certificate chains and keys have some kilobytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// What is said to a client that speaks HTTP without TLS.
const NO_TLS_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 42\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use https:// for it\n";

/// How long, and how much, a client that speaks HTTP without TLS may go on: otherwise a reset could overtake its answer.
const NO_TLS_LINGER_TIME: Duration = Duration::from_secs(1);
const NO_TLS_LINGER_BYTES: u64 = 64 * 1024;

/// The files of a certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those of the authorities between it and a root.
    pub certificate: PathBuf,
    /// The private key, not encrypted.
    pub key: PathBuf,
}

/// Why a certificate and its key cannot be used. The path is part of the message.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: it cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has more bytes than certificates have.
    #[error("{}: it has more than {MAX_PEM_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is no PEM.
    #[error("{}: it is not PEM: {source}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("{}: it has no certificate (a block BEGIN CERTIFICATE)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no key.
    #[error("{}: it has no private key (a block BEGIN PRIVATE KEY)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key can only be read with a password.
    #[error("{}: its key is encrypted; expected one without a password", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// What a file has in place of a certificate is none.
    #[error("{}: its first certificate is damaged: {source}", path.display())]
    DamagedCertificate {
        /// The file.
        path: PathBuf,
        /// In which way.
        source: RustlsError,
    },
    /// A key of a kind that is not known, or damaged.
    #[error("{}: its key cannot be used: expected RSA (2048 to 8192 bits), ECDSA (P-256, P-384) or Ed25519 ({source})", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RustlsError,
    },
    /// Certificate and key do not belong together.
    #[error("{}: its key does not belong to the first certificate in {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
}

/// Ends the TLS of connections, with a certificate that can be replaced while it is in use.
#[derive(Debug)]
pub struct TlsTermination {
    files: TlsFiles,
    /// What connections that begin use. Those that have begun keep what they have.
    current: RwLock<Arc<ServerConfig>>,
}

impl TlsTermination {
    /// Reads both files. It blocks.
    ///
    /// # Errors
    /// When they cannot be read or used, or do not belong together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = server_config(&files)?;
        Ok(Self { files, current: RwLock::new(config) })
    }

    /// Reads both files again, for connections that begin from now on. It blocks.
    ///
    /// # Errors
    /// The same as [`Self::load`]; what was read before stays in use then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Does the handshake of one connection. `wrap` is put around its socket.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: TcpStream,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> io::Result<TlsStream<S>> {
        let mut first = [0];
        // A handshake begins with byte 22, and a request with the letters of its method.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            stream.write_all(NO_TLS_ANSWER).await?;
            stream.shutdown().await?;
            let mut rest = stream.take(NO_TLS_LINGER_BYTES);
            // What comes does not matter.
            let _ = timeout(NO_TLS_LINGER_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(wrap(stream)).await
    }
}

/// The cryptography that is used, always the same.
pub(super) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = read_certificates(&files.certificate)?;
    let key = read_key(&files.key)?;
    let config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(|source| match source {
        RustlsError::InconsistentKeys(_) => {
            TlsError::KeyMismatch { key: files.key.clone(), certificate: files.certificate.clone() }
        }
        RustlsError::InvalidCertificate(_) => TlsError::DamagedCertificate { path: files.certificate.clone(), source },
        source => TlsError::UnusableKey { path: files.key.clone(), source },
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| TlsError::Unreadable { path: path.into(), source })?;
    if text.len() as u64 > MAX_PEM_BYTES {
        return Err(TlsError::TooLarge { path: path.into() });
    }
    Ok(text)
}

/// Reads the certificates of a file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|source| TlsError::NotPem { path: path.into(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_file(path)?;
    // PKCS #8, and what OpenSSL wrote before.
    let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == *mark));
    if is_encrypted {
        return Err(TlsError::EncryptedKey { path: path.into() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.into() },
        source => TlsError::NotPem { path: path.into(), source },
    })
}

/// What client and server have agreed to speak, if they have.
pub(super) fn agreed_protocol<S>(stream: &TlsStream<S>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}
