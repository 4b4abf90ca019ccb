output "chips" {
  description = "Addresses and settings for the command line."
  value       = module.chips
}
