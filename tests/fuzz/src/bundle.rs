//! A bundle from the control plane, as the daemon parses it.

use devbox_secrets_proto::bundle::{Bundle, BundleWriter, Entry};
use devbox_secrets_proto::name::{check_name, max_value_len};
use devbox_secrets_proto::seal::{ENCAPPED_KEY_LEN, TAG_LEN};

/// The format's mark and the revision: what goes before the encapsulated key.
const START_LEN: usize = 12;

/// Parses `bytes` as a message, and once more with an encapsulated key put in its place: the key says nothing to the
/// parser, and without it a mutation is a hundred times as likely to hit a field.
///
/// # Panics
/// If a parsed bundle breaks a promise of the format.
pub fn check(bytes: &[u8]) {
    check_message(bytes);
    if let Some((start, rest)) = bytes.split_at_checked(START_LEN) {
        check_message(&[start, &[0; ENCAPPED_KEY_LEN], rest].concat());
    }
}

fn check_message(message: &[u8]) {
    let Ok(bundle) = Bundle::parse(message) else { return };
    assert!(bundle.entries.windows(2).all(|pair| pair[0].label.env < pair[1].label.env), "not ascending");
    bundle.entries.iter().for_each(check_entry);
    assert_eq!(written(&bundle), message, "a bundle has two forms");
}

fn check_entry(entry: &Entry<'_>) {
    assert_eq!(check_name(entry.label.env), Ok(()));
    assert!(entry.value_len() <= max_value_len(entry.label.env), "{} cannot hold its value", entry.label.env);
}

fn written(bundle: &Bundle<'_>) -> Vec<u8> {
    let count = u32::try_from(bundle.entries.len()).expect("the count has 32 bits in the message");
    let mut writer = BundleWriter::new(bundle.revision, bundle.encapped_key, count, 0);
    for entry in &bundle.entries {
        let (ciphertext, tag) = entry.sealed.split_last_chunk::<TAG_LEN>().expect("a sealed value has a tag");
        writer.push(entry.label, ciphertext, tag).expect("a parsed bundle fits the format");
    }
    writer.finish()
}
