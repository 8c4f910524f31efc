//! The pool's own certificate authority, made at the first start, and the server's certificate,
//! made at every start for the names it goes by just then.
//!
//! Profile of the certificates: RFC 5280; names to verify: RFC 6125.

use crate::ServerError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;

/// First and last year of the authority: longer than any machine of the pool lives. The authority
/// is trusted because clients and tokens name it, not because of its dates.
const CA_YEARS: (i32, i32) = (2020, 2120);

/// An authority as it lies in the data directory.
pub(crate) struct Authority {
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    /// Its private key, PEM.
    pub(crate) key: String,
}

fn failed(error: impl std::fmt::Display) -> ServerError {
    ServerError::Tls(error.to_string())
}

/// What the authority's certificate says; the same at every start.
fn ca_params() -> Result<CertificateParams, ServerError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "gleaner pool");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(CA_YEARS.0, 1, 1);
    params.not_after = date_time_ymd(CA_YEARS.1, 1, 1);
    Ok(params)
}

impl Authority {
    pub(crate) fn make() -> Result<Self, ServerError> {
        let key = KeyPair::generate().map_err(failed)?;
        let params = ca_params()?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn der(&self) -> Result<CertificateDer<'static>, ServerError> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(failed)
    }

    /// BLAKE3 of the certificate, as node tokens carry it.
    pub(crate) fn fingerprint(&self) -> Result<String, ServerError> {
        Ok(blake3::hash(&self.der()?).to_hex().to_string())
    }

    /// TLS for the server: a fresh certificate, and the authority's behind it, so that an agent
    /// can find in the chain what its token names.
    pub(crate) fn server(
        &self,
        names: Vec<String>,
    ) -> Result<Arc<rustls::ServerConfig>, ServerError> {
        let ca_key = KeyPair::from_pem(&self.key).map_err(failed)?;
        // The same name and key as in the certificate: what an issuer is known by.
        let issuer = Issuer::new(ca_params()?, ca_key);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "gleaner server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(CA_YEARS.0, 1, 1);
        params.not_after = date_time_ymd(CA_YEARS.1, 1, 1);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        let chain = vec![certificate.der().clone(), self.der()?];
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(failed)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(failed)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The names under which clients may reach a server that listens on `addr`.
pub(crate) fn names(addr: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !host.is_empty() && host.chars().all(plain) {
        names.push(host.to_owned());
    }
    let ip = addr.ip();
    if !ip.is_unspecified() {
        names.push(ip.to_string());
    }
    names.sort();
    names.dedup();
    names
}
