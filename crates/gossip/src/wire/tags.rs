//! A member's tags as its meta data.

use std::collections::BTreeMap;

use super::msgpack::{Reader, Writer};
use super::{MAX_META, WireError};

/// The first byte of encoded tags; without it the meta data is the role, as protocol 2 has it.
const MAGIC: u8 = 255;

/// Names and values, by name. Consul's are `role`, `dc`, `id`, `vsn`, `port`, `build` and more.
pub type Tags = BTreeMap<String, String>;

/// The meta data of these tags.
///
/// # Errors
/// They are longer than [`MAX_META`] when encoded.
pub fn encode(tags: &Tags) -> Result<Vec<u8>, WireError> {
    let mut out = vec![MAGIC];
    let mut writer = Writer::new(&mut out);
    writer.map(tags.len());
    for (name, value) in tags {
        writer.text(name).text(value);
    }
    if out.len() > MAX_META {
        return Err(WireError::TooLarge { what: "the encoded tags", limit: MAX_META });
    }
    Ok(out)
}

/// The tags in meta data. What cannot be read is left out: a member with bad tags is a member.
pub fn decode(meta: &[u8]) -> Tags {
    let Some((&MAGIC, encoded)) = meta.split_first() else {
        return Tags::from([("role".to_owned(), String::from_utf8_lossy(meta).into_owned())]);
    };
    let (mut tags, mut reader) = (Tags::new(), Reader::new(encoded));
    for _ in 0..reader.map().unwrap_or_default() {
        let (Ok(name), Ok(value)) = (reader.text(), reader.text()) else { break };
        tags.insert(name.to_owned(), value.to_owned());
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_and_a_bare_role_is_one() {
        let tags = Tags::from([("role".into(), "consul".into()), ("dc".into(), "dc1".into())]);
        assert_eq!(decode(&encode(&tags).unwrap()), tags);
        assert_eq!(decode(b"web"), Tags::from([("role".into(), "web".into())]));
        assert_eq!(decode(&[MAGIC, 0xdf, 0xff, 0xff, 0xff, 0xff]), Tags::new());
    }

    #[test]
    fn tags_that_do_not_fit_into_meta_data_are_refused() {
        let tags = Tags::from([("x".into(), "y".repeat(MAX_META))]);
        assert!(encode(&tags).unwrap_err().to_string().contains("512"));
    }
}
