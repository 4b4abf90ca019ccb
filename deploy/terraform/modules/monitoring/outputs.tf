output "channels" {
  description = "Notification channels, for further policies and the budget."
  value       = [for channel in google_monitoring_notification_channel.email : channel.id]
}
