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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Addresses of this machine that the certificate names; one with more has containers, and those that
/// matter can be told.
const ADDRESSES_MAX: usize = 64;

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

/// The names under which clients may reach a server that listens on `addr`: those of this machine,
/// and those that its admin gave.
pub(crate) fn names(addr: SocketAddr, given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    names.extend_from_slice(given);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !host.is_empty() && host.chars().all(plain) {
        names.push(host.to_owned());
    }
    match addr.ip() {
        ip if ip.is_unspecified() => names.extend(own_addresses().iter().map(IpAddr::to_string)),
        ip => names.push(ip.to_string()),
    }
    names.sort();
    names.dedup();
    names
}

/// The addresses of this machine, as the kernel routes to them.
fn own_addresses() -> Vec<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (four, six) = (read("/proc/net/fib_trie"), read("/proc/net/if_inet6"));
    let four = addresses_v4(&four).map(IpAddr::V4);
    let six = addresses_v6(&six).map(IpAddr::V6);
    four.chain(six).take(ADDRESSES_MAX).collect()
}

/// In a table of routes by prefix, those of one address that lead to this machine.
fn addresses_v4(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    table.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        }
        last.filter(|_| line == "/32 host LOCAL")
    })
}

/// In a table of interfaces, addresses that mean the same on every machine of the network.
fn addresses_v6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table.lines().filter_map(|line| {
        let digits = line.split_whitespace().next()?;
        let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        (!address.is_unicast_link_local()).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
        |-- 127.0.0.1\n           /32 host LOCAL\n     +-- 10.1.2.0/24 2 0 2\n        |-- 10.1.2.0\n           \
        /24 link UNICAST\n        |-- 10.1.2.7\n           /32 host LOCAL\n        |-- 10.1.2.255\n           \
        /32 link BROADCAST\n";
    const INTERFACES: &str = "fd000000000000000000000000000002 04 40 00 82     eth0\n\
        fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
        00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";

    #[test]
    fn a_machine_goes_by_the_addresses_that_others_reach_it_at() {
        let four: Vec<String> = addresses_v4(ROUTES).map(|ip| ip.to_string()).collect();
        assert_eq!(four, ["127.0.0.1", "10.1.2.7"]);
        let six: Vec<String> = addresses_v6(INTERFACES).map(|ip| ip.to_string()).collect();
        assert_eq!(six, ["fd00::2", "::1"]);
        assert_eq!(addresses_v4("").count() + addresses_v6("").count(), 0);
    }

    #[test]
    fn a_server_goes_by_what_its_admin_says_too() {
        let given = ["pool.example.org".to_owned(), "localhost".to_owned()];
        let one = names("10.1.2.7:8421".parse().unwrap(), &given);
        for name in ["pool.example.org", "10.1.2.7", "127.0.0.1", "::1"] {
            assert!(one.iter().any(|known| known == name), "{name}: {one:?}");
        }
        assert_eq!(one.iter().filter(|name| *name == "localhost").count(), 1);
        let all = names("0.0.0.0:8421".parse().unwrap(), &[]);
        assert!(!all.iter().any(|name| name == "0.0.0.0"), "{all:?}");
    }
}
