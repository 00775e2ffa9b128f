//! Storage against real servers, started and stopped by the tests.

mod conformance;
mod faults;
mod pool;
mod remote;
mod s3;
mod scoring;
mod secrets;
mod web;
