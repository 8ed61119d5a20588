package ingress

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// observer is told of each commit.
type observer = func(messages int, took time.Duration)

// commitMetrics are what the committers did, by the family of their stream.
type commitMetrics struct {
	messages, seconds *prometheus.HistogramVec
}

func newCommitMetrics(to prometheus.Registerer) commitMetrics {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "trunkline", Subsystem: "ingress", Name: name, Help: help, Buckets: buckets,
		}, []string{"stream"})
	}
	m := commitMetrics{
		messages: histogram("commit_messages", "Messages stored by one commit.", prometheus.ExponentialBuckets(1, 2, 11)),
		seconds:  histogram("commit_seconds", "How long a commit took.", prometheus.ExponentialBuckets(0.0001, 2, 16)),
	}
	if to != nil {
		to.MustRegister(m.messages, m.seconds)
	}
	return m
}

func (m commitMetrics) of(stream string) observer {
	messages, seconds := m.messages.WithLabelValues(stream), m.seconds.WithLabelValues(stream)
	return func(n int, took time.Duration) {
		messages.Observe(float64(n))
		seconds.Observe(took.Seconds())
	}
}
