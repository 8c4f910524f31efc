//! Both back ends.
