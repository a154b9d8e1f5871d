//! Whether a query is for this member.

use regex::RegexBuilder;

use super::Core;
use crate::wire::serf::Filter;

/// How large a filter's expression may become when it is compiled.
const EXPRESSION_SIZE: usize = 64 * 1024;

impl Core {
    /// Whether all filters match this member. A filter that cannot be read matches nobody.
    pub(super) fn is_meant(&self, filters: &[&[u8]]) -> bool {
        filters.iter().all(|filter| match Filter::decode(filter) {
            Ok(Filter::Nodes(nodes)) => nodes.contains(&self.config.name.as_str()),
            Ok(Filter::Tag { tag, expression }) => {
                let value = self.config.tags.get(tag).map_or("", String::as_str);
                RegexBuilder::new(expression)
                    .size_limit(EXPRESSION_SIZE)
                    .build()
                    .is_ok_and(|expression| expression.is_match(value))
            }
            Err(error) => {
                tracing::debug!(%error, "a query's filter cannot be read");
                false
            }
        })
    }
}
