//! The tokens of prepared queries: sealed before the log, shown again only to who may see everything.

use lictor_types::prepared_query::{HIDDEN_TOKEN, PreparedQuery};
use lictor_types::{Answer, Command, Refusal};

use crate::datacenter::ServerDatacenter;

/// What tokens of prepared queries are sealed for.
const SEAL_CONTEXT: &[u8] = b"prepared-query-token";

impl ServerDatacenter {
    /// The command with the secrets in it sealed. What an asker claims to have sealed itself does not count.
    pub(crate) fn sealed(&self, command: Command) -> Result<Command, Refusal> {
        let Command::PreparedQuerySet(mut set) = command else { return Ok(command) };
        let query = &mut set.query;
        query.token_lookup = None;
        query.sealed_token = Vec::new();
        // The authoriser refuses the word that stands for a hidden token.
        if !query.token.is_empty() && query.token != HIDDEN_TOKEN {
            let token = std::mem::take(&mut query.token);
            query.token_lookup = Some(self.seal.token_lookup(&token));
            query.sealed_token =
                self.seal.seal(token.as_bytes(), SEAL_CONTEXT).map_err(|error| Refusal::failed(error.to_string()))?;
        }
        Ok(Command::PreparedQuerySet(set))
    }

    /// Shows the tokens that the state left sealed in an answer: those that the asker may see.
    pub(crate) fn unseal(&self, answer: &mut Answer) -> Result<(), Refusal> {
        let Answer::PreparedQueries(queries) = answer else { return Ok(()) };
        queries.iter_mut().try_for_each(|query| self.unseal_token(query))
    }

    fn unseal_token(&self, query: &mut PreparedQuery) -> Result<(), Refusal> {
        let sealed = std::mem::take(&mut query.sealed_token);
        if sealed.is_empty() {
            return Ok(());
        }
        let failed = |reason: String| Refusal::failed(format!("the token of the query {}: {reason}", query.id));
        let token = self.seal.unseal(&sealed, SEAL_CONTEXT).map_err(|error| failed(error.to_string()))?;
        query.token = std::str::from_utf8(&token).map_err(|error| failed(error.to_string()))?.to_owned();
        Ok(())
    }
}
