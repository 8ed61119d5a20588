// Package request defines what the parts ask each other: a subject, a question
// and an answer per endpoint. Refusals travel beside it as faults.
package request
