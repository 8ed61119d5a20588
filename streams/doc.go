// Package streams is the contract between Trunkline's parts: ids, states,
// subjects, streams and buckets.
//
// Parts meet only here. Nothing outside this module computes a shard, builds a
// subject or names a stream.
package streams
