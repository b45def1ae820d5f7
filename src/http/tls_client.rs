//! A client that knows the certificate of its server beforehand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error as RustlsError, SignatureScheme,
    StreamOwned,
};

use super::tls::{TlsError, crypto, read_certificates};

/// Why a client cannot begin a connection.
#[derive(Debug, Error)]
pub enum TlsClientError {
    /// The file with the certificate.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// TLS itself.
    #[error(transparent)]
    Tls(#[from] RustlsError),
}

/// Begins a connection to a server that must have the first certificate of this file, and its key. Neither its names nor its
/// dates matter. It blocks.
///
/// # Errors
/// When the file cannot be used. That the server has another certificate is an error of reading and writing.
pub fn connect_pinned(
    stream: TcpStream,
    address: SocketAddr,
    certificate: &Path,
) -> Result<impl Read + Write, TlsClientError> {
    let crypto = crypto();
    let expected = read_certificates(certificate)?.swap_remove(0);
    let verifier = Arc::new(PinnedCertificate { expected, crypto: Arc::clone(&crypto) });
    let config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::from(address.ip()))?;
    Ok(StreamOwned::new(connection, stream))
}

/// Tells whether reading or writing failed because the server has another certificate.
#[must_use]
pub fn is_other_certificate(error: &io::Error) -> bool {
    let expected = RustlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) == Some(&expected)
}

/// Trusts one certificate and no other. The server proves as usual that it has the key.
#[derive(Debug)]
struct PinnedCertificate {
    expected: CertificateDer<'static>,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        if *end_entity == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
