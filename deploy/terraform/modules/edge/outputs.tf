output "address" {
  description = "IP address for the domains' A records."
  value       = google_compute_global_address.edge.address
}
