//! Collectives: which bytes go where when (pure), and the pump that moves them.
