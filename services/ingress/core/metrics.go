package core

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accepted, replayed, pulled, reported prometheus.Counter
	refused                              *prometheus.CounterVec
}

func newMetrics(to prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "trunkline", Subsystem: "ingress", Name: name, Help: help})
	}
	m := &metrics{
		accepted: counter("accepted_messages_total", "Messages stored in the queue."),
		replayed: counter("replayed_requests_total", "Requests answered by the marker of an earlier one with the same key."),
		pulled:   counter("pulled_messages_total", "Messages handed to phones."),
		reported: counter("reported_messages_total", "Reports of phones that were stored."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "trunkline", Subsystem: "ingress", Name: "refused_requests_total", Help: "Requests refused, by the reason's code.",
		}, []string{"reason"}),
	}
	if to != nil {
		to.MustRegister(m.accepted, m.replayed, m.pulled, m.reported, m.refused)
	}
	return m
}
