//! Bundles, sealed as the control plane seals them.

use devbox_secrets_proto::bundle::BundleWriter;
use devbox_secrets_proto::seal::{Context, Label, Sealer};

/// A bundle as it comes over the wire, for the devbox whose public key this is. Each variable has its secret's name, the
/// id `sec_NAME` and version 1; bindings are sorted.
///
/// # Panics
/// If the key is not an X-Wing key, or a variable does not fit into a bundle.
#[must_use]
pub fn seal<'a>(
    public_key: &[u8],
    devbox_id: &str,
    revision: u64,
    variables: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Vec<u8> {
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort_unstable();
    let count = u32::try_from(variables.len()).expect("a test has few variables");
    let context = Context { devbox_id, revision, count };
    let (mut sealer, encapped) = Sealer::new(public_key, context).expect("the key is an X-Wing key");
    let mut writer = BundleWriter::new(revision, &encapped, count, 0);
    for (name, value) in variables {
        let secret_id = format!("sec_{name}");
        let label = Label { env: name, secret: name, secret_id: &secret_id, version: 1 };
        let mut sealed = value.to_vec();
        let tag = sealer.seal(label, &mut sealed).expect("a short value can be sealed");
        writer.push(label, &sealed, &tag).expect("a short value fits");
    }
    writer.finish()
}
