//! The part of a TLS verifier that never differs.

/// The methods of a `ServerCertVerifier` or `ClientCertVerifier` that check handshake signatures,
/// with the algorithms of `self.$provider`, a `CryptoProvider`. The decision about certificates is
/// left to write.
///
/// A macro, not a delegating type, because the two traits share these methods and no supertrait.
#[macro_export]
macro_rules! verify_signatures_with {
    ($provider:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signed: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signed: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.$provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            self.$provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
