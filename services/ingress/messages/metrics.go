package messages

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	accepted, replayed, pulled, reported prometheus.Counter
	repeated, unnamed                    prometheus.Counter
}

func newMetrics(to prometheus.Registerer) *metrics {
	with := promauto.With(to)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Namespace: "trunkline", Subsystem: "ingress", Name: name, Help: help})
	}
	return &metrics{
		accepted: counter("accepted_messages_total", "Messages stored in the queue."),
		replayed: counter("replayed_requests_total", "Requests answered by the marker of an earlier one with the same key."),
		pulled:   counter("pulled_messages_total", "Messages handed to phones."),
		reported: counter("reported_messages_total", "Reports of phones that were stored."),
		repeated: counter("repeated_messages_total", "Reports that changed nothing and were not stored."),
		unnamed:  counter("unnamed_reports_total", "Reports stored without the phone's name: the account has too many, or they cannot be looked up."),
	}
}
