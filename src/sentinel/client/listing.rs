//! The replicas that a Sentinel lists.

use redis::Value;

use super::reply::read_listed;
use super::{Asking, ClientError};
use crate::topology::observation::Listed;

/// Most replicas taken from one reply.
const MAX_LISTED: usize = 64;
/// Longest list of replicas; each takes more than a kilobyte.
const LONGEST_LIST: usize = 256 * 1024;

impl Asking {
    /// The replicas that this Sentinel knows of this master (SENTINEL REPLICAS). The inner error: why it lists none.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn replicas(
        &mut self,
        master: &str,
    ) -> Result<Result<Vec<Listed>, String>, ClientError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("REPLICAS").arg(master);
        match self.0.ask_at_length(&question, LONGEST_LIST).await {
            Ok(Value::Array(listed)) => {
                let listed = listed.iter().take(MAX_LISTED).filter_map(read_listed);
                Ok(Ok(listed.collect()))
            }
            Ok(_) => Ok(Err("its answer is no list".to_owned())),
            Err(ClientError::NoPermission(why) | ClientError::Protocol(why)) => Ok(Err(why)),
            Err(e) => Err(e),
        }
    }
}
