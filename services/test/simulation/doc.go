// Package simulation is the whole product in simulated time: senders, phones,
// operators and crashes drawn from a seed, and a model that holds what they see
// to the laws. It has only tests; `make simulate` runs more of them.
package simulation
