//! Tests certificates of other programs, which are read, and certificates that this crate makes.

use jiff::{SignedDuration, Timestamp};
use rsa::{RsaPublicKey, pkcs1v15, pkcs8::DecodePublicKey, signature::Verifier};
use sealing::{
    Certificate, CertificateError, DEFAULT_VALIDITY, PemError, PublicKeyError, SelfSignedError, self_signed,
};
use sha2::Sha256;
use x509_cert::{
    der::{Decode, Encode},
    ext::pkix::{BasicConstraints, KeyUsage, SubjectKeyIdentifier},
};

use crate::vectors::{RSA_2048, RSA_4096, file};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn certificates_of_sealed_secrets_are_read() {
    for (pair, bits, common_name) in [(&RSA_2048, 2048, Some("gitseal test key")), (&RSA_4096, 4096, None)] {
        let certificate = &pair.certificate;
        assert_eq!(certificate.public_key().bits(), bits);
        assert_eq!(certificate.common_name(), common_name);
        assert_eq!(certificate.not_before(), at("2026-11-21T09:16:37Z"));
        assert_eq!(certificate.not_after(), at("2036-11-18T09:16:37Z"));
        assert_eq!(certificate.public_key(), pair.key.public_key());
    }
}

#[test]
fn the_letters_of_a_name_follow_from_the_certificate() {
    // These letters were computed from the output of `openssl x509 -fingerprint -sha256`: each group of four bytes
    // modulo 27.
    let certificate = Certificate::from_pem(&file("rsa-2048.openssl.crt")).unwrap();
    assert_eq!(certificate.name_letters(), "lhnbthnv");
    assert_ne!(RSA_2048.certificate.name_letters(), certificate.name_letters(), "the same key");
}

#[test]
fn a_certificate_of_openssl_is_read() {
    let certificate = Certificate::from_pem(&file("rsa-2048.openssl.crt")).unwrap();
    assert_eq!(certificate.common_name(), Some("Grüße"));
    assert_eq!(certificate.not_after(), at("2126-10-28T09:20:39Z"));
    assert_eq!(certificate.public_key(), RSA_2048.key.public_key());
    // The fingerprints that `openssl x509 -fingerprint -sha256` and `openssl rsa -pubout -outform DER | sha256sum`
    // print.
    assert_eq!(certificate.fingerprint(), "72fd4e85284730b93d1a00be7a34f3c64400f8d7210aa2fd09fecef3bebbbe8e");
    assert_eq!(
        certificate.public_key().fingerprint(),
        "1c14477022c67d9106e103eb7a2fd1c9da3d86e1ea704a81d33d31cc132800a9"
    );
}

#[test]
fn pem_goes_both_ways() {
    for name in ["rsa-2048.crt", "rsa-4096.crt"] {
        let pem = file(name);
        assert_eq!(Certificate::from_pem(&pem).unwrap().to_pem().as_bytes(), pem);
    }
}

#[test]
fn the_first_certificate_of_several_counts() {
    let several = [file("rsa-4096.key"), file("rsa-4096.crt"), file("rsa-2048.crt")].concat();
    assert_eq!(Certificate::from_pem(&several).unwrap(), RSA_4096.certificate);
}

#[test]
fn pem_with_other_line_ends_and_widths_is_read() {
    let pem = String::from_utf8(file("rsa-2048.crt")).unwrap();
    let body = pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let on_one_line = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----");
    for text in [pem.replace('\n', "\r\n"), pem.replace('\n', "\n  "), on_one_line] {
        assert_eq!(Certificate::from_pem(text.as_bytes()).unwrap(), RSA_2048.certificate);
    }
}

#[test]
fn certificates_that_cannot_seal_are_refused() {
    let refused = |name: &str| Certificate::from_pem(&file(&format!("refused/{name}"))).unwrap_err();
    assert_eq!(refused("rsa-1024.crt"), CertificateError::Key(PublicKeyError::Size(1024)));
    assert_eq!(refused("rsa-8200.crt"), CertificateError::Key(PublicKeyError::Size(8200)));
    assert_eq!(refused("p256.crt"), CertificateError::Key(PublicKeyError::NotRsa));
    assert_eq!(refused("p256.key"), CertificateError::Missing);
}

#[test]
fn a_truncated_certificate_is_refused() {
    let pem = file("rsa-2048.crt");
    let refused = Certificate::from_pem(&pem[..pem.len() / 2]).unwrap_err();
    assert_eq!(refused, CertificateError::Pem(PemError::Unterminated));
    let der = RSA_2048.certificate.as_der();
    assert!(matches!(Certificate::from_der(&der[..der.len() - 1]), Err(CertificateError::Malformed(_))));
}

#[test]
fn a_certificate_is_expired_after_its_last_second() {
    let certificate = &RSA_2048.certificate;
    let second = SignedDuration::from_secs(1);
    assert!(!certificate.is_expired(certificate.not_before() - second));
    assert!(!certificate.is_expired(certificate.not_after()));
    assert!(certificate.is_expired(certificate.not_after() + second));
}

#[test]
fn a_self_signed_certificate_holds_what_was_asked_for() {
    let not_before = at("2026-11-21T10:00:00.75Z");
    let certificate = self_signed(&RSA_2048.key, "sealing.example", not_before, DEFAULT_VALIDITY).unwrap();
    assert_eq!(certificate.not_before(), at("2026-11-21T10:00:00Z"));
    assert_eq!(certificate.not_after(), at("2036-11-18T10:00:00Z"));
    assert_eq!(certificate.common_name(), Some("sealing.example"));
    assert_eq!(certificate.public_key(), RSA_2048.key.public_key());
    assert_eq!(Certificate::from_pem(certificate.to_pem().as_bytes()).unwrap(), certificate);
}

#[test]
fn a_self_signed_certificate_is_like_those_of_sealed_secrets() {
    for (pair, common_name) in [(&RSA_2048, "gitseal test key"), (&RSA_4096, "")] {
        let theirs = &pair.certificate;
        let ours = self_signed(&pair.key, common_name, theirs.not_before(), DEFAULT_VALIDITY).unwrap();
        let parse = |certificate: &Certificate| x509_cert::Certificate::from_der(certificate.as_der()).unwrap();
        let (theirs, ours) = (parse(theirs).tbs_certificate, parse(&ours).tbs_certificate);
        assert_eq!(ours.version, theirs.version);
        assert_eq!(ours.signature, theirs.signature);
        assert_eq!(ours.validity, theirs.validity);
        assert_eq!(ours.subject.to_string(), theirs.subject.to_string());
        assert_eq!(ours.issuer, ours.subject);
        assert_eq!(ours.subject_public_key_info, theirs.subject_public_key_info);
        assert_eq!(ours.get::<KeyUsage>(), theirs.get::<KeyUsage>());
        assert_eq!(ours.get::<BasicConstraints>(), theirs.get::<BasicConstraints>());
        assert_eq!(ours.get::<SubjectKeyIdentifier>(), theirs.get::<SubjectKeyIdentifier>());
        assert_ne!(ours.serial_number, theirs.serial_number);
    }
}

#[test]
fn the_signature_of_a_self_signed_certificate_verifies() {
    let certificate = self_signed(&RSA_4096.key, "cn", at("2026-11-21T10:00:00Z"), DEFAULT_VALIDITY).unwrap();
    let parsed = x509_cert::Certificate::from_der(certificate.as_der()).unwrap();
    let key = RsaPublicKey::from_public_key_der(certificate.public_key().as_der()).unwrap();
    let signature = pkcs1v15::Signature::try_from(parsed.signature.raw_bytes()).unwrap();
    pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(&parsed.tbs_certificate.to_der().unwrap(), &signature).unwrap();
}

#[test]
fn dates_beyond_2049_are_kept() {
    let validity = SignedDuration::from_hours(100 * 365 * 24);
    let certificate = self_signed(&RSA_2048.key, "", at("2026-11-21T10:00:00Z"), validity).unwrap();
    assert_eq!(certificate.not_after(), at("2126-10-28T10:00:00Z"));
}

#[test]
fn impossible_validities_are_refused() {
    for (not_before, hours) in
        [("2026-11-21T10:00:00Z", 0), ("2026-11-21T10:00:00Z", -1), ("1969-01-01T00:00:00Z", 24 * 365 * 9)]
    {
        let refused = self_signed(&RSA_2048.key, "", at(not_before), SignedDuration::from_hours(hours)).unwrap_err();
        assert!(matches!(refused, SelfSignedError::Validity { .. }), "{refused}");
    }
    assert!(self_signed(&RSA_2048.key, "", at("2026-11-21T10:00:00Z"), SignedDuration::MAX).is_err());
}
