#![doc = include_str!("../README.md")]

pub mod audit;
pub mod cli;
pub mod data_dir;
pub mod demo;
pub mod doctor;
pub mod instance;
pub mod remote;
pub mod up;
pub mod user_token;

mod database;
