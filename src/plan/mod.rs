//! (to come)

pub(crate) mod caps;
pub(crate) mod limits;
pub(crate) mod options;
