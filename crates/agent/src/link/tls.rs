//! Whom the agent trusts: the CA in a file, or the CA whose fingerprint is in the token.
//!
//! One set of TLS settings serves the gRPC stream and the transfers of blobs.

use crate::AgentError;
use crate::config::AgentConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;

/// Settings for connections to the server.
pub(crate) fn client_config(config: &AgentConfig) -> Result<ClientConfig, AgentError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| AgentError::Tls(error.to_string()))?;
    if let Some(path) = &config.ca {
        let unreadable =
            |error| AgentError::Tls(format!("cannot read the CA {}: {error}", path.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots
                .add(certificate)
                .map_err(|error| AgentError::Tls(error.to_string()))?;
        }
        if roots.is_empty() {
            let problem = format!("{} holds no certificate", path.display());
            return Err(AgentError::Tls(problem));
        }
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let fingerprint = super::token::fingerprint(&config.token).ok_or_else(|| {
        AgentError::Tls(
            "the token names no CA; give the server's CA as a PEM file, or make a new node token"
                .to_owned(),
        )
    })?;
    let verifier = Pinned {
        fingerprint,
        provider,
    };
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Settings that trust nobody: an HTTP client wants some, also where it never uses them.
pub(crate) fn nobody() -> Result<ClientConfig, AgentError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AgentError::Tls(error.to_string()))?;
    let roots = RootCertStore::empty();
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Accepts a server whose chain leads to the one CA with a known fingerprint.
///
/// The chain brings the CA along; everything else (signatures, names, validity) is checked by
/// rustls' own verifier with that CA as its sole root.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A leaf with the fingerprint would be no CA; only the rest of the chain counts.
        let ca = chain
            .iter()
            .find(|certificate| *blake3::hash(certificate).as_bytes() == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&KeyPair::generate().unwrap(), authority)
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn the_fingerprint_decides_and_names_are_still_checked() {
        let (ours, other) = (authority(), authority());
        let pinned = Pinned {
            fingerprint: *blake3::hash(ours.der()).as_bytes(),
            provider: Arc::new(ring::default_provider()),
        };
        let check = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            pinned
                .verify_server_cert(leaf, chain, &name, &[], UnixTime::now())
                .is_ok()
        };
        let good = leaf(&ours, "pool.example");
        let (ours, theirs) = (ours.der().clone(), other.der().clone());
        assert!(check(&good, std::slice::from_ref(&ours), "pool.example"));
        assert!(!check(
            &good,
            std::slice::from_ref(&ours),
            "elsewhere.example"
        ));
        assert!(!check(&good, &[], "pool.example"));
        assert!(!check(&good, std::slice::from_ref(&theirs), "pool.example"));
        // A stranger's certificate does not become good by sending our CA along.
        let strange = leaf(&other, "pool.example");
        assert!(!check(&strange, &[theirs], "pool.example"));
        assert!(!check(&strange, &[ours], "pool.example"));
    }
}
