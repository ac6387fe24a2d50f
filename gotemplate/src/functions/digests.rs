//! sprig: digests and password hashes.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::{Failure, Function, Memory, Outcome, Text, Value, function, text};

pub(super) const FUNCTIONS: &[Function] = &[
    function("sha1sum", &[Text], |memory, arguments| digest::<Sha1>(memory, text(arguments, 0))),
    function("sha256sum", &[Text], |memory, arguments| digest::<Sha256>(memory, text(arguments, 0))),
    function("sha512sum", &[Text], |memory, arguments| digest::<Sha512>(memory, text(arguments, 0))),
    function("adler32sum", &[Text], |memory, arguments| {
        memory.copied(adler2::adler32_slice(text(arguments, 0)).to_string().as_bytes())
    }),
    function("bcrypt", &[Text], |memory, arguments| {
        let hash = hash(memory, text(arguments, 0))?;
        memory.copied(hash.as_bytes())
    }),
    function("htpasswd", &[Text, Text], htpasswd),
];

fn digest<D: Digest>(memory: &mut Memory, input: &[u8]) -> Outcome {
    memory.budget.step(input.len() / 64)?;
    let digest: String = D::digest(input).iter().map(|byte| format!("{byte:02x}")).collect();
    memory.copied(digest.as_bytes())
}

fn htpasswd(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let (user, password) = (text(arguments, 0), text(arguments, 1));
    let mut out = memory.buffer();
    if user.contains(&b':') {
        out.push(b"invalid username: ");
        out.push(user);
    } else {
        out.push(user);
        out.push(b":");
        out.push(hash(memory, password)?.as_bytes());
    }
    memory.text(out)
}

/// Cost 10, as in sprig. The salt is the same at every rendering, see [`crate::Salts`].
fn hash(memory: &mut Memory, password: &[u8]) -> Result<Zeroizing<String>, Failure> {
    const COST: u32 = 10;
    const LONGEST: usize = 72;
    /// A password hash counts as this number of steps.
    const STEPS: usize = 100_000;
    memory.budget.step(STEPS)?;
    if password.len() > LONGEST {
        // As in sprig, the result is this text and not an error.
        let text = "failed to encrypt string with bcrypt: bcrypt: password length exceeds 72 bytes";
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let salt = memory.salts.take();
    let hashed = bcrypt::hash_with_salt(password, COST, salt).map_err(|_| "the password cannot be hashed")?;
    Ok(Zeroizing::new(hashed.format_for_version(bcrypt::Version::TwoA)))
}
