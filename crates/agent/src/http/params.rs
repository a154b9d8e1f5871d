//! The query string, read once.

use std::borrow::Cow;
use std::time::Duration;

use lictor_runtime::Rng;
use lictor_types::{Block, Consistency, Freshness, Index, Refusal, duration};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::limits::HttpLimits;

/// What Go escapes in a query string; it writes a space as `+`.
const GO_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Parameters of a query string in their order. A name may come more than once; then the first counts, except for lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string as Go does: `+` is a space, a name without `=` has the empty value.
    ///
    /// # Errors
    /// 400: a name or a value is not UTF-8 text.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let Some(query) = query else { return Ok(Self::default()) };
        let mut pairs = Vec::new();
        for piece in query.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`; the empty text for a bare one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name` unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether `name` is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Every value of `name`.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The number that `name` says.
    ///
    /// # Errors
    /// 400: it is not a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Refusal::bad_request(format!("Invalid value for ?{name}: {text:?} is not a number from 0 to {}", u64::MAX))
        })
    }

    /// Go's boolean, or `true` for a bare name.
    ///
    /// # Errors
    /// 400 with Consul's text.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(_) => Err(Refusal::bad_request(format!("Invalid value for ?{name}"))),
        }
    }

    /// The query string again, names sorted, as Go encodes it.
    pub(super) fn encode(&self) -> String {
        let mut pairs: Vec<_> = self.0.iter().collect();
        pairs.sort_by_key(|(name, _)| name);
        let encoded = |text: &str| utf8_percent_encode(text, GO_QUERY).to_string().replace("%20", "+");
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
    }

    /// Consistency, index and wait of a read.
    ///
    /// # Errors
    /// 400 with Consul's texts.
    pub(super) fn freshness(&self, limits: &HttpLimits, rng: &dyn Rng) -> Result<Freshness, Refusal> {
        let consistency = self.consistency()?;
        let index = match self.text("index") {
            None => 0,
            Some(text) => text.parse().map_err(|_| Refusal::bad_request("Invalid index"))?,
        };
        let wait = self.wait(limits)?;
        if index == 0 {
            return Ok(Freshness { consistency, block: None });
        }
        let wait_millis = wait.as_millis() as u64;
        // Spread over a sixteenth, so that readers who began together do not all return together.
        let wait_millis = wait_millis + rng.below(wait_millis / 16 + 1);
        Ok(Freshness { consistency, block: Some(Block { after: Index(index), wait_millis }) })
    }

    /// How long an answer may be waited for that this agent gives itself.
    ///
    /// # Errors
    /// 400 with Consul's text.
    pub(super) fn wait(&self, limits: &HttpLimits) -> Result<Duration, Refusal> {
        let wait = match self.text("wait") {
            None => Duration::ZERO,
            Some(text) => duration::parse(text).map_err(|_| Refusal::bad_request("Invalid wait time"))?,
        };
        Ok(if wait.is_zero() { limits.default_query_time } else { wait.min(limits.max_query_time) })
    }

    fn consistency(&self) -> Result<Consistency, Refusal> {
        let consistent = self.has("consistent");
        if consistent && self.has("stale") {
            return Err(Refusal::bad_request("Cannot specify ?stale with ?consistent, conflicting semantics."));
        }
        if consistent && self.has("cached") {
            return Err(Refusal::bad_request("Cannot specify ?cached with ?consistent, conflicting semantics."));
        }
        Ok(match (consistent, self.has("stale")) {
            (true, _) => Consistency::Consistent,
            (false, true) => Consistency::Stale,
            (false, false) => Consistency::Default,
        })
    }

    /// How old a stale answer may be.
    ///
    /// # Errors
    /// 400 with Consul's text.
    pub(super) fn max_stale(&self) -> Result<Option<Duration>, Refusal> {
        let Some(text) = self.text("max_stale") else { return Ok(None) };
        let invalid = |_| Refusal::bad_request(format!("Invalid max_stale value {text:?}"));
        duration::parse(text).map(Some).map_err(invalid)
    }
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Refusal::bad_request(format!("the query string {text:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;

    use super::*;

    fn freshness(query: &str) -> Result<Freshness, String> {
        let params = Params::parse(Some(query)).unwrap();
        params.freshness(&HttpLimits::default(), &SeededRng::new(1)).map_err(|refusal| refusal.text)
    }

    #[test]
    fn a_query_string_is_read_as_go_reads_it() {
        let params = Params::parse(Some("a=1&b=x+y%2Fz&c&a=2&&d=%26")).unwrap();
        assert_eq!(params.get("a"), Some("1"));
        assert_eq!(params.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(params.get("b"), Some("x y/z"));
        assert!(params.has("c") && params.text("c").is_none());
        assert_eq!(params.get("d"), Some("&"));
        assert_eq!(Params::parse(Some("b=1&a=x y")).unwrap().encode(), "a=x+y&b=1");
        assert_eq!(Params::parse(Some("acquire=00-0_1.~&cas=1")).unwrap().encode(), "acquire=00-0_1.~&cas=1");
        assert!(Params::parse(Some("a=%ff")).is_err());
    }

    #[test]
    fn freshness_follows_the_parameters() {
        assert_eq!(freshness("").unwrap(), Freshness::default());
        assert_eq!(freshness("stale").unwrap().consistency, Consistency::Stale);
        assert_eq!(freshness("consistent&index=0&wait=5s").unwrap().block, None);
        let block = freshness("index=7&wait=16s").unwrap().block.unwrap();
        assert_eq!(block.after, Index(7));
        assert!((16_000..=17_000).contains(&block.wait_millis), "{}", block.wait_millis);
        let block = freshness("index=7").unwrap().block.unwrap();
        assert!((300_000..=318_750).contains(&block.wait_millis), "{}", block.wait_millis);
        let block = freshness("index=7&wait=24h").unwrap().block.unwrap();
        assert!((600_000..=637_500).contains(&block.wait_millis), "{}", block.wait_millis);
    }

    #[test]
    fn wrong_freshness_is_refused_with_consuls_words() {
        for (query, text) in [
            ("stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
            ("cached&consistent", "Cannot specify ?cached with ?consistent, conflicting semantics."),
            ("index=x", "Invalid index"),
            ("index=1&wait=30", "Invalid wait time"),
        ] {
            assert_eq!(freshness(query), Err(text.into()));
        }
        let params = Params::parse(Some("max_stale=old&passing=maybe&yes=1")).unwrap();
        assert_eq!(params.max_stale().unwrap_err().text, "Invalid max_stale value \"old\"");
        assert_eq!(params.flag("passing").unwrap_err().text, "Invalid value for ?passing");
        assert_eq!(params.flag("yes"), Ok(true));
    }
}
