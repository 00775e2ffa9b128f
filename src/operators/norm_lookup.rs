//! How operators reach the norm store: through the session's configuration, so that a plan stays plain data.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::prelude::SessionConfig;

use crate::norms::NormStore;

/// The norm store of a session, as an extension of its configuration.
#[derive(Debug, Clone)]
pub struct NormContext(Arc<NormStore>);

impl NormContext {
    /// A session configuration whose plans look percentiles up in `store`.
    pub fn install(config: SessionConfig, store: Arc<NormStore>) -> SessionConfig {
        config.with_extension(Arc::new(NormContext(store)))
    }

    /// The store of the session that a plan runs in.
    pub fn of(context: &TaskContext) -> Result<Arc<NormStore>> {
        match context.session_config().get_extension::<NormContext>() {
            Some(context) => Ok(Arc::clone(&context.0)),
            None => Err(DataFusionError::Configuration(
                "the session has no norm store: install one with NormContext::install".to_owned(),
            )),
        }
    }
}
