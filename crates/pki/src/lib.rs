//! Who is who in a swarm: keys, certificates, join tokens, and the TLS that every node-to-node connection wears.
//!
//! ```text
//!  RootCa --sign_csr--> chain --+
//!  NodeKey ---------------------+--> Credentials (a directory, and in memory) --> tls::Listener   (server)
//!  root bundle -----------------+         ^ replaced at renewal, without restart  tls::Connector  (client)
//! ```
//!
//! An [`Identity`] is read from a peer's certificate once per connection, by the verifier that also checked its
//! chain; nobody else parses certificates. What an identity may do is decided by whoever serves the call.
//!
//! Invariants: private keys never leave this crate except as PEM for the encrypted store; every file is written
//! whole (temporary name, fsync, rename) with mode 0600; secrets are compared in constant time.
//!
//! *Start reading at* [`Credentials`].
//!
//! # Why
//! 2026-11: names in certificates are checked by us, not by webpki: a node id may be all digits, which is no DNS
//! name. TLS sessions are never resumed: a resumed session would outlive the certificate it began with.

mod ca;
mod credentials;
mod guests;
mod identity;
mod lock;
pub mod passphrase;
mod person;
pub mod tls;
mod token;
mod verify;

pub use ca::{Authority, CaError, NodeKey, RootCa};
pub use credentials::{Credentials, CredentialsError};
pub use guests::{Guarded, Guests};
pub use identity::{Identity, InvalidCertificate, common_name, node_certificate_life, role_name};
pub use lock::{InvalidUnlockKey, UnlockKey, is_locked};
pub use person::{
    InvalidPersonToken, PASSWORD_BYTES, PersonCertificate, PersonToken, hash_password, password_matches,
};
pub use token::{InvalidToken, JoinToken};
pub use verify::Expected;

use model::{Duration, Timestamp};
use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// Makes aws-lc-rs the process's TLS provider. Safe to call often; call it first in `main`.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // A second caller may have won the race: it installed the same provider.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    }
}

/// Returns the provider used for every connection, installed or not.
///
/// `ring` would take some 20 s less of a processor to build, debug or release. It has no key exchange that holds against a
/// quantum computer, and what nodes say today (secrets, keys of the log) is worth recording for one; X25519MLKEM768 is
/// what both ends offer first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Returns when a certificate should be renewed: at 50 to 80 % of its life, chosen by `random` so that nodes
/// that joined together do not renew together.
pub fn renewal_due(not_before: Timestamp, not_after: Timestamp, random: u64) -> Timestamp {
    let life = not_after.since(not_before).as_secs();
    let permille = 500 + random % 301;
    not_before
        .after(Duration::from_secs((life / 1000).saturating_mul(permille) + life % 1000 * permille / 1000))
}

/// Returns the time by which certificates are made and judged.
fn now() -> Timestamp {
    Timestamp(sys::clock::nanos())
}

/// Returns the SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ClusterId, NodeId, Role};

    #[test]
    fn what_is_recorded_today_is_no_use_to_a_quantum_computer() {
        let id = ClusterId(7);
        let ca = RootCa::generate(id).unwrap();
        let node = |n| {
            let key = NodeKey::generate().unwrap();
            let csr = key.csr_pem().unwrap();
            let chain = ca.sign_csr(&csr, NodeId(n), Role::Manager, id, Duration::from_secs(60)).unwrap();
            Credentials::in_memory(&key.pem(), &chain, ca.cert_pem()).unwrap()
        };
        let mut server = rustls::ServerConnection::new(node(1).server_config()).unwrap();
        let name = "swarm-node".try_into().unwrap();
        let mut client =
            rustls::ClientConnection::new(node(2).client_config(Expected::Member), name).unwrap();
        for _ in 0..4 {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            let mut rest = sent.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut sent = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut sent).unwrap();
            }
            let mut rest = sent.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        let agreed = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(agreed, rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn renewal_falls_between_half_and_four_fifths_of_life() {
        let (from, to) = (Timestamp(0), Timestamp(0).after(Duration::from_secs(1_000_000)));
        for random in [0, 1, 150, 300, 301, u64::MAX] {
            let due = renewal_due(from, to, random).since(from).as_secs();
            assert!((500_000..=800_000).contains(&due), "{random}: {due}");
        }
    }
}
