//! The control plane's own certificate authority, server certificate, client certificates and service account keys.

use std::{fmt::Display, net::Ipv4Addr, time::Duration};

use p256::{
    ecdsa::{DerSignature, SigningKey},
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use rand_core::{OsRng, RngCore};
use x509_cert::{
    attr::{AttributeTypeAndValue, AttributeValue},
    builder::{Builder, CertificateBuilder, Profile},
    der::{
        self, EncodePem, Tag,
        asn1::{Ia5String, ObjectIdentifier, OctetString, SetOfVec},
    },
    ext::pkix::{ExtendedKeyUsage, SubjectAltName, name::GeneralName},
    name::{Name, RdnSequence, RelativeDistinguishedName},
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::Validity,
};

use crate::error::{Error, Result};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// How long a certificate is valid: longer than any test or demo runs.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate authority. Its key never leaves this process.
#[derive(Debug)]
pub(crate) struct Authority {
    name: Name,
    key: SigningKey,
    pem: String,
}

/// A certificate and its private key, both as PEM.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let what = "certificate authority";
        let name = subject("localcluster", &[]).map_err(failed(what))?;
        let key = SigningKey::random(&mut OsRng);
        let pem = certificate(Profile::Root, &name, &key, &key, None).map_err(failed(what))?;
        Ok(Self { name, key, pem })
    }

    /// The certificate of the authority, which all clients must trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server on these addresses and names.
    pub(crate) fn server(&self, addresses: &[Ipv4Addr], names: &[&str]) -> Result<Pair> {
        let alternatives = || -> Result<Vec<GeneralName>, der::Error> {
            let addresses =
                addresses.iter().map(|address| OctetString::new(address.octets()).map(GeneralName::IpAddress));
            let names = names.iter().map(|name| Ia5String::new(name).map(GeneralName::DnsName));
            addresses.chain(names).collect()
        };
        let alternatives = alternatives().map_err(failed("server certificate"))?;
        self.issue("kube-apiserver", &[], SERVER_AUTH, Some(SubjectAltName(alternatives)))
    }

    /// A client certificate. The API server reads the user and the user's groups from it.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<Pair> {
        self.issue(user, groups, CLIENT_AUTH, None)
    }

    fn issue(
        &self,
        name: &str,
        groups: &[&str],
        usage: ObjectIdentifier,
        alternatives: Option<SubjectAltName>,
    ) -> Result<Pair> {
        let key = SigningKey::random(&mut OsRng);
        let issue = || {
            let profile =
                Profile::Leaf { issuer: self.name.clone(), enable_key_agreement: false, enable_key_encipherment: true };
            let subject = subject(name, groups)?;
            certificate(profile, &subject, &key, &self.key, Some((usage, alternatives)))
        };
        let certificate = issue().map_err(failed(&format!("certificate of {name}")))?;
        let key = key.to_pkcs8_pem(LineEnding::LF).map_err(failed("private key"))?.to_string();
        Ok(Pair { certificate, key })
    }
}

/// The key pair for service account tokens: the private key and the public key, as PEM.
pub(crate) fn service_account_keys() -> Result<(String, String)> {
    let what = "service account key";
    let key = SigningKey::random(&mut OsRng);
    let private = key.to_pkcs8_pem(LineEnding::LF).map_err(failed(what))?.to_string();
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(failed(what))?;
    Ok((private, public))
}

/// The subject of a client certificate: the user as common name, and each group as an organization. The order of the groups
/// does not matter.
fn subject(name: &str, groups: &[&str]) -> Result<Name, der::Error> {
    let part = |oid, text: &str| -> Result<RelativeDistinguishedName, der::Error> {
        let value = AttributeValue::new(Tag::Utf8String, text.as_bytes())?;
        Ok(RelativeDistinguishedName(SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }])?))
    };
    let groups = groups.iter().map(|group| part(ORGANIZATION, group));
    groups.chain([part(COMMON_NAME, name)]).collect::<Result<Vec<_>, _>>().map(RdnSequence)
}

fn certificate(
    profile: Profile,
    subject: &Name,
    key: &SigningKey,
    signer: &SigningKey,
    extensions: Option<(ObjectIdentifier, Option<SubjectAltName>)>,
) -> Result<String, x509_cert::builder::Error> {
    let mut serial = [0; 16];
    OsRng.fill_bytes(&mut serial);
    // A serial number must be positive, and must not begin with a zero byte.
    serial[0] = serial[0] & 0x3f | 0x40;
    let public = SubjectPublicKeyInfoOwned::from_key(*key.verifying_key())?;
    let validity = Validity::from_now(LIFETIME)?;
    let mut builder =
        CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, subject.clone(), public, signer)?;
    if let Some((usage, alternatives)) = extensions {
        builder.add_extension(&ExtendedKeyUsage(vec![usage]))?;
        if let Some(alternatives) = alternatives {
            builder.add_extension(&alternatives)?;
        }
    }
    Ok(builder.build::<DerSignature>()?.to_pem(LineEnding::LF)?)
}

fn failed<E: Display>(what: &str) -> impl FnOnce(E) -> Error {
    let what = what.to_owned();
    move |error| Error::Certificate { what, reason: error.to_string() }
}
